"""The options of a layer, checked once, with errors that name the option."""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Final, Self

from sqlalchemy import URL

from pgchannels.arguments import (
    DAY,
    TEN_YEARS,
    refusal,
    require_callable_or_none,
    require_count,
    require_seconds,
    shown,
)
from pgchannels.errors import ConfigurationError
from pgchannels.names import DEFAULT_PREFIX, DEFAULT_SCHEMA, require_valid_prefix, require_valid_schema
from pgchannels.serializers import BUILT_IN, registry

_SHORTEST_MEMORY_SECONDS: Final = 5  # in which calls can be repeated
_CONNECTIONS: Final = (2, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a layer; times are in seconds.

    `upgrade_advice` returns what an error about missing or outdated tables advises.

    :raises ConfigurationError: a value is impossible; the text names the option.
    """

    prefix: str = DEFAULT_PREFIX
    expiry: float = 60
    group_expiry: float = 0
    capacity: int = 1000
    channel_capacity: Mapping[str | re.Pattern[str], int] = field(default_factory=dict)
    symmetric_encryption_keys: Sequence[str | bytes] = ()
    unsealed_topics: Sequence[str | re.Pattern[str]] = ()
    serializer_format: str = "msgpack"
    default: Callable[[Any], Any] | None = None
    schema: str = DEFAULT_SCHEMA
    send_timeout: float = 30
    heartbeat: float = 5
    poll: float | None = None
    listen_url: str | URL | None = field(default=None, repr=False)
    connections: int = 3
    on_disconnect: str | None = None
    on_reconnect: str | None = None
    on_gap: str | None = None
    upgrade_advice: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        self._set(
            prefix=require_valid_prefix(self.prefix),
            schema=require_valid_schema(self.schema),
            expiry=require_seconds("expiry", self.expiry, most=TEN_YEARS),
            group_expiry=require_seconds("group_expiry", self.group_expiry, most=TEN_YEARS, or_zero=True),
            send_timeout=require_seconds("send_timeout", self.send_timeout, most=DAY),
            heartbeat=require_seconds("heartbeat", self.heartbeat, most=DAY),
            poll=None if self.poll is None else require_seconds("poll", self.poll, most=DAY),
            capacity=require_count("capacity", self.capacity),
            channel_capacity=_capacities(self.channel_capacity),
            symmetric_encryption_keys=_keys(self.symmetric_encryption_keys),
            unsealed_topics=_patterns(self.unsealed_topics),
            serializer_format=_format(self.serializer_format),
        )
        self._require_one_way_to_receive()
        if type(self.connections) is not int or self.connections not in _CONNECTIONS:
            raise refusal("connections", self.connections, "3, or 2 to send on the connection that also reads")
        for name in ("on_disconnect", "on_reconnect", "on_gap"):
            _require_message_type(name, getattr(self, name))
        require_callable_or_none("default", self.default)
        if self.default is not None and self.serializer_format not in BUILT_IN:
            raise ConfigurationError(
                f"default has no use with serializer_format={self.serializer_format!r}: what that cannot carry its own"
                " class says"
            )

    @property
    def retention(self) -> float:
        """For how long the log must keep messages for this layer."""
        # Each heartbeat tells a node that it has heard everything: until then, nothing may leave the log.
        return max(self.expiry, 3 * self.beat_seconds + _SHORTEST_MEMORY_SECONDS)

    @property
    def beat_seconds(self) -> float:
        """The time between two heartbeats: a layer that polls calls the database no more often than it polls."""
        return max(self.heartbeat, self.poll or 0)

    @property
    def is_writer_shared(self) -> bool:
        """Whether a node sends on the connection for everything else; one that polls has only two without that."""
        return self.connections == _CONNECTIONS[0] and self.poll is None

    @property
    def is_sessionless(self) -> bool:
        """Whether no statement may rely on the session of the one before, apart from those of a `listen_url`."""
        return self.poll is not None or self.listen_url is not None

    @classmethod
    def among(cls, arguments: Mapping[str, Any], **others: Any) -> Self:
        """Return the options among the arguments of a layer, by their names, and others beside them."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments}, **others)

    def capacity_of(self, channel: str) -> int:
        """Return how many messages may wait for a channel: the first matching pattern's figure, else `capacity`."""
        matching = (figure for pattern, figure in self.channel_capacity.items() if expression(pattern).match(channel))
        return next(matching, self.capacity)

    def may_be_unsealed(self, topic: str) -> bool:
        """Whether messages to a topic are accepted unencrypted although there are keys."""
        return any(expression(pattern).match(topic) for pattern in self.unsealed_topics)

    def _require_one_way_to_receive(self) -> None:
        if self.poll is None:
            return
        if self.listen_url is not None:
            raise ConfigurationError("poll and listen_url exclude each other: a layer listens, or it polls")
        if self.expiry < 2 * self.poll:
            raise ConfigurationError(
                f"poll={self.poll:g} needs expiry={2 * self.poll:g} or longer, and expiry is {self.expiry:g}: messages"
                " would expire before they are read"
            )

    def _set(self, **checked: object) -> None:
        for name, value in checked.items():
            object.__setattr__(self, name, value)


@cache
def expression(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    """Return the regular expression of a pattern."""
    return re.compile(fnmatch.translate(pattern)) if isinstance(pattern, str) else pattern


def _require_message_type(name: str, value: object) -> None:
    if value is not None and not (isinstance(value, str) and value):
        raise refusal(name, value, f"the type of a message, such as 'chat.{name}'")


def _capacities(capacities: object) -> Mapping[str | re.Pattern[str], int]:
    if capacities is None:
        return {}
    if not isinstance(capacities, Mapping):
        raise refusal("channel_capacity", capacities, "a dict of patterns and figures")
    return {
        require_pattern(key): require_count(f"channel_capacity[{shown(key)}]", capacities[key]) for key in capacities
    }


def _patterns(patterns: object) -> Sequence[str | re.Pattern[str]]:
    if patterns is None:
        return ()
    if isinstance(patterns, str) or not isinstance(patterns, Sequence):
        raise refusal("unsealed_topics", patterns, "a list of patterns, such as ['orders.*']")
    return tuple(require_pattern(pattern, "a pattern of unsealed_topics") for pattern in patterns)


def require_pattern(key: object, name: str = "a key of channel_capacity") -> str | re.Pattern[str]:
    """Return a pattern of names.

    :raises ConfigurationError: the value is anything else.
    """
    if isinstance(key, str):
        return key
    if isinstance(key, re.Pattern) and isinstance(key.pattern, str):
        return key
    raise refusal(name, key, "a str, or a compiled expression of one")


def _keys(keys: object) -> Sequence[bytes]:
    if keys is None:
        return ()
    if isinstance(keys, str | bytes):
        raise ConfigurationError("symmetric_encryption_keys must be a list of keys, not a single str or bytes")
    if not isinstance(keys, Sequence) or not all(secrets := [_secret(key) for key in keys]):
        raise ConfigurationError("symmetric_encryption_keys must be a list of bytes or Unicode text, none of it empty")
    return tuple(secrets)


def _secret(key: object) -> bytes:
    # By the methods of the type itself, and empty if it is no key. No error may hold the key.
    with suppress(TypeError, UnicodeEncodeError):  # of another type, or half of a surrogate pair
        return bytes.__bytes__(key) if isinstance(key, bytes) else str.encode(key)  # type: ignore[arg-type]
    return b""


def _format(name: object) -> str:
    names = registry.names()
    with suppress(Exception):  # it is not among them, or of a class whose methods fail
        if isinstance(name, str):
            return names[names.index(name)]
    raise ConfigurationError(
        f"serializer_format={shown(name)} is not known: it is one of {', '.join(names)}, or a name that"
        " was registered before the layer is made: `pgchannels.serializers.registry.register_serializer(…)`"
    )
