"""The errors that pgchannels raises."""

from collections.abc import Iterator
from contextlib import suppress
from types import MemberDescriptorType
from typing import Final, TypeVar

from pgchannels.messages import Gap

_IS_WRITTEN_IN_PYTHON: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE

E = TypeVar("E", bound=BaseException)


class PgChannelsError(Exception):
    """The base of all pgchannels errors.

    `may_have_been_sent` says whether the message of a failed `publish` or `send` may be in the database anyway.
    """

    def __init__(self, text: str, *, may_have_been_sent: bool = False) -> None:
        super().__init__(text)
        self.may_have_been_sent = may_have_been_sent


class ConfigurationError(PgChannelsError, ValueError):
    """An option is unknown or has an impossible value."""


class InvalidPosition(ConfigurationError):
    """The value of `since` or `until` is neither a position that a message can have, nor a time."""


class InvalidName(PgChannelsError, TypeError):
    """A topic, channel, prefix or schema has a name that cannot be used."""


class InvalidMessage(PgChannelsError, TypeError):
    """A payload holds a value that no message can carry; the text says where in the payload it is."""


class MessageTooLarge(PgChannelsError, ValueError):
    """A payload takes more bytes than a message may have."""


class UnreadableMessage(PgChannelsError):
    """Stored bytes cannot be read: damaged, encrypted with an unknown key, or written by a newer version."""


class LayerClosed(PgChannelsError):
    """The layer is not open in this event loop, or was closed while the call waited."""


class ForeignChannel(LayerClosed, AssertionError):  # which Channels' other layers raise
    """`receive` from a channel of another event loop or process, or of this one before it closed the layer."""


class WouldBlock(PgChannelsError, RuntimeError):
    """A synchronous call would block the event loop that runs in this thread: await the asynchronous one there."""


class SchemaMissing(PgChannelsError):
    """The database has no pgchannels tables in the configured schema."""


class SchemaOutdated(PgChannelsError):
    """The pgchannels tables are older than the code."""


class DatabaseUnavailable(PgChannelsError):
    """The database did not answer within the time limit of the call."""


class DatabaseRefused(PgChannelsError):
    """The database answered with an error that a retry would not fix, such as a missing privilege."""


class ChannelFull(PgChannelsError):
    """As many messages as its capacity already wait for a channel: this one was not sent."""


def channel_full(channel: str, capacity: int | None) -> ChannelFull:
    """Return the error for a channel or a work queue without room for a message."""
    return ChannelFull(
        f"{channel} is full: capacity={capacity} messages wait for it, this one was not sent. Receive faster, or raise"
        " `capacity` or its `channel_capacity`"
    )


class MessagesLost(PgChannelsError):
    """A receiver lost messages for good: `gap` says why, and how many. Receiving again continues after the gap.

    Only if its mailbox was full, with `when_full="fail"`, has a subscription ended.
    """

    def __init__(self, gap: Gap, advice: str = "") -> None:
        super().__init__(advice)
        self.gap = gap

    def __str__(self) -> str:
        return f"{self.gap}{super().__str__()}"

    @property
    def count(self) -> int | None:
        """How many messages were lost; None if unknown."""
        return self.gap.count


def copy_of(error: E) -> E:
    """Copy an error without its traceback: an instance raised in many places collects the frames of all of them.

    Type, `args`, attributes, cause and context stay the same. The constructor is not called: its parameters may differ.
    """
    kind = type(error)
    try:
        copy: E = _built_in(kind).__new__(kind, *error.args)
    except TypeError:  # not even its built-in base accepts its `args`
        return error
    vars(copy).update(vars(error))
    for name in ("args", "__cause__", "__context__"):
        BaseException.__setattr__(copy, name, getattr(error, name))
    for member in _members(kind):
        with suppress(AttributeError, TypeError):  # not set, or read-only
            _set(copy, member, member.__get__(error))
    return copy


def _built_in(kind: type[BaseException]) -> type[BaseException]:
    while kind.__flags__ & _IS_WRITTEN_IN_PYTHON:
        assert kind.__base__ is not None
        kind = kind.__base__
    return kind


def _set(copy: BaseException, member: MemberDescriptorType, value: object) -> None:
    with suppress(AttributeError):
        if member.__get__(copy) is value:  # also an unset field that reads as None
            return
    member.__set__(copy, value)


def _members(kind: type[BaseException]) -> Iterator[MemberDescriptorType]:
    """Yield what instances hold outside their `__dict__`: slots, and the fields of classes written in C."""
    for base in kind.__mro__:
        yield from (member for member in vars(base).values() if isinstance(member, MemberDescriptorType))
