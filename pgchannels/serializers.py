"""Custom message formats, by name: `serializer_format="yaml"` uses the one registered as "yaml"."""

import re
from typing import Any, Final, Protocol

from pgchannels.arguments import shown
from pgchannels.errors import ConfigurationError

BUILT_IN: Final = ("msgpack", "json")
_NAME: Final = re.compile(r"[a-zA-Z0-9_.\-]{1,50}")


class Serializer(Protocol):
    """Turns payloads into bytes and back; one instance serves all messages, from any thread."""

    def as_bytes(self, message: Any, /) -> bytes:
        """Return the bytes of a payload; `publish` and `send` raise whatever this raises."""

    def from_bytes(self, message: bytes, /) -> Any:
        """Return a new copy of the payload; if this raises, the message is unreadable, and its receiver gets a gap."""


class SerializerRegistry:
    """The formats that this process knows besides msgpack and JSON; it cannot read any others."""

    def __init__(self) -> None:
        self._serializers: dict[str, Serializer] = {}

    def register_serializer(self, name: str, serializer_class: type[Serializer]) -> None:
        """Register a format; every process that sends or receives must do so before its first message.

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
        """Return the serializer with this name, or None."""
        return self._serializers.get(name)

    def names(self) -> list[str]:
        """Return all formats, the built-in ones first."""
        return [*BUILT_IN, *self._serializers]


registry: Final = SerializerRegistry()
