"""Formats of one's own for messages, by name: `serializer_format="yaml"` uses what is registered as "yaml"."""

import re
from typing import Any, Final, Protocol

from pgchannels.arguments import shown
from pgchannels.errors import ConfigurationError

BUILT_IN: Final = ("msgpack", "json")
_NAME: Final = re.compile(r"[a-zA-Z0-9_.\-]{1,50}")


class Serializer(Protocol):
    """Turns payloads into bytes and back; one is made for all messages, and used from any thread."""

    def as_bytes(self, message: Any, /) -> bytes:
        """The bytes of a payload; may raise anything, which `publish` and `send` then raise."""

    def from_bytes(self, message: bytes, /) -> Any:
        """A new copy of the payload; a message for which this raises is unreadable: a gap for its receiver."""


class SerializerRegistry:
    """The formats that this process knows, beside msgpack and JSON. What it does not know it cannot read."""

    def __init__(self) -> None:
        self._serializers: dict[str, Serializer] = {}

    def register_serializer(self, name: str, serializer_class: type[Serializer]) -> None:
        """Make a format known; every process that sends or receives must do so before its first message.

        :raises ConfigurationError: the name is impossible or built in, or the class lacks one of the two methods.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in BUILT_IN:
            raise ConfigurationError(
                f"a serializer's name is a str of 1 to 50 ASCII letters, digits and '-_.', and not one of"
                f" {', '.join(BUILT_IN)}: {shown(name)}"
            )
        missing = [method for method in ("as_bytes", "from_bytes") if not hasattr(serializer_class, method)]
        if missing:
            raise ConfigurationError(f"the serializer {name!r} has no method {missing[0]}()")
        self._serializers[name] = serializer_class()

    def get(self, name: str) -> Serializer | None:
        """The serializer with this name."""
        return self._serializers.get(name)

    def names(self) -> list[str]:
        """All formats, the built in ones first."""
        return [*BUILT_IN, *self._serializers]


registry: Final = SerializerRegistry()
