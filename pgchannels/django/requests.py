"""What Channels asks of a sender: checked at once, carried out by whichever sender there is."""

import re
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, TypeAlias

from channels import exceptions

from pgchannels.arguments import shown
from pgchannels.errors import ChannelFull, InvalidMessage, InvalidName, MessageTooLarge
from pgchannels.names import require_valid_channel
from pgchannels.sending.sender import Sender

Request: TypeAlias = Callable[[Sender], Awaitable[Any]]

_RESERVED_KEY: Final = "__asgi_channel__"
_LONGEST_GROUP: Final = 99
_GROUP: Final = re.compile(r"[a-zA-Z0-9\-_.]+")


class RefusedMessage(InvalidMessage, AssertionError):  # which Channels' other layers raise
    """A message that no layer of Channels takes."""


def send(channel: str, message: dict[str, Any]) -> Request:
    """Send a message to a channel."""
    require_valid_channel(channel)
    _require_sendable(message)
    return lambda sender: sender.send(channel, message)


def group_send(group: str, message: dict[str, Any]) -> Request:
    """Send a message to a group."""
    require_valid_group(group)
    _require_sendable(message)
    return lambda sender: sender.publish(group, message)


def group_add(group: str, channel: str) -> Request:
    """Add a channel to a group."""
    require_valid_group(group)
    require_valid_channel(channel)
    return lambda sender: sender.join(group, channel)


def group_discard(group: str, channel: str) -> Request:
    """Remove a channel from a group."""
    require_valid_group(group)
    require_valid_channel(channel)
    return lambda sender: sender.leave(group, channel)


def flush(sender: Sender) -> Awaitable[None]:
    """Delete every message and membership."""
    return sender.flush()


class _ErrorsOfChannels:
    """Raises the errors that Channels has names for as Channels' own."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ChannelFull):
            raise exceptions.ChannelFull(str(error)) from error
        if isinstance(error, MessageTooLarge):
            raise exceptions.MessageTooLarge(str(error)) from error


errors_of_channels: Final = _ErrorsOfChannels()  # a generator would take a microsecond of each call


def require_valid_group(name: object) -> str:
    """Return the name of a group, or raise `InvalidName`."""
    if isinstance(name, str) and len(name) <= _LONGEST_GROUP and _GROUP.fullmatch(name):
        return name
    raise InvalidName(
        f"{shown(name)} is no group: a group is a str of 1 to {_LONGEST_GROUP} ASCII letters, digits and '-_.'"
    )


def _require_sendable(message: object) -> None:
    if not isinstance(message, dict):
        raise RefusedMessage(f"a message of Channels is a dict, not a {type(message).__name__}")
    if _RESERVED_KEY in message:
        raise RefusedMessage(f"the key {_RESERVED_KEY!r} is reserved for receivers: send the message without it")
