"""What one can configure, checked once, with errors that name the option."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from pgchannels.errors import ConfigurationError
from pgchannels.names import DEFAULT_PREFIX, DEFAULT_SCHEMA, require_valid_prefix, require_valid_schema
from pgchannels.serializers import registry

_GREATEST_CAPACITY: Final = 2**31 - 1  # a greater integer the database does not take


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a layer; times are in seconds.

    :raises ConfigurationError: a value is impossible; the text names the option.
    """

    prefix: str = DEFAULT_PREFIX
    expiry: float = 60
    group_expiry: float = 0
    capacity: int = 1000
    channel_capacity: Mapping[str | re.Pattern[str], int] = field(default_factory=dict)
    symmetric_encryption_keys: Sequence[str | bytes] = ()
    serializer_format: str = "msgpack"
    schema: str = DEFAULT_SCHEMA
    send_timeout: float = 30
    heartbeat: float = 5
    on_disconnect: str | None = None
    on_reconnect: str | None = None
    on_gap: str | None = None

    def __post_init__(self) -> None:
        require_valid_prefix(self.prefix)
        require_valid_schema(self.schema)
        _require_number("expiry", self.expiry, above=0)
        _require_number("group_expiry", self.group_expiry, at_least=0)
        _require_number("send_timeout", self.send_timeout, above=0)
        _require_number("heartbeat", self.heartbeat, above=0)
        for name in ("on_disconnect", "on_reconnect", "on_gap"):
            _require_message_type(name, getattr(self, name))
        require_count("capacity", self.capacity)
        _require_capacities(self.channel_capacity)
        _require_keys(self.symmetric_encryption_keys)
        _require_format(self.serializer_format)

    def capacity_of(self, channel: str) -> int:
        """How many messages wait for a channel at most: the first matching pattern's figure, else `capacity`."""
        matching = (figure for pattern, figure in self.channel_capacity.items() if _expression(pattern).match(channel))
        return min(next(matching, self.capacity), _GREATEST_CAPACITY)


@cache
def _expression(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern)) if isinstance(pattern, str) else pattern


def _require_message_type(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value):
        raise ConfigurationError(f"{name} must be the type of a message, such as 'chat.{name}', not {value!r:.80}")


def _require_number(name: str, value: object, *, above: float | None = None, at_least: float | None = None) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigurationError(f"{name} must be a number of seconds, not {value!r}")
    if above is not None and not value > above:
        raise ConfigurationError(f"{name} must be greater than {above} seconds, not {value!r}")
    if at_least is not None and not value >= at_least:
        raise ConfigurationError(f"{name} must be {at_least} seconds or more, not {value!r}")


def require_count(name: str, value: object) -> None:
    """Refuse what is no number of messages.

    :raises ConfigurationError: it is no whole number, or less than 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} must be a number of messages from 1 on, not {value!r}")


def _require_capacities(capacities: object) -> None:
    if not isinstance(capacities, Mapping):
        raise ConfigurationError(f"channel_capacity must be a dict of patterns and figures, not {capacities!r:.80}")
    for pattern, capacity in capacities.items():
        require_count(f"channel_capacity[{pattern!r}]", capacity)


def _require_keys(keys: object) -> None:
    if isinstance(keys, str | bytes):
        raise ConfigurationError("symmetric_encryption_keys must be a list of keys, not a single str or bytes")
    if not isinstance(keys, Sequence) or not all(isinstance(key, str | bytes) and key for key in keys):
        raise ConfigurationError("symmetric_encryption_keys must be a list of str or bytes, none of them empty")


def _require_format(name: object) -> None:
    if name not in registry.names():
        raise ConfigurationError(
            f"serializer_format={name!r:.80} is not known: it is one of {', '.join(registry.names())}, or a name that"
            " was registered before the layer is made: `pgchannels.serializers.registry.register_serializer(…)`"
        )
