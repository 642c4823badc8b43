"""Checks groups and messages by the rules of Channels, and raises its errors."""

import re
from types import TracebackType
from typing import Any, Final

from channels import exceptions

from pgchannels.arguments import shown
from pgchannels.errors import ChannelFull, InvalidMessage, InvalidName, MessageTooLarge
from pgchannels.names import require_valid_channel
from pgchannels.sending.outgoing import Outgoing, Packer

_RESERVED_KEY: Final = "__asgi_channel__"
_LONGEST_GROUP: Final = 99
_GROUP: Final = re.compile(r"[a-zA-Z0-9\-_.]+")


class RefusedMessage(InvalidMessage, AssertionError):  # which Channels' other layers raise
    """A message that no layer of Channels takes."""


def require_message(message: object) -> None:
    """Return if Channels' other layers take the message, too.

    :raises RefusedMessage: they do not.
    """
    if not isinstance(message, dict):
        raise RefusedMessage(f"a message of Channels is a dict, not a {type(message).__name__}")
    if _RESERVED_KEY in message:
        raise RefusedMessage(f"the key {_RESERVED_KEY!r} is reserved for receivers: send the message without it")


class FullChannel(ChannelFull, exceptions.ChannelFull):
    """As many messages as its capacity already wait for a channel; also caught as Channels' own error."""


class TooLargeMessage(MessageTooLarge, exceptions.MessageTooLarge):
    """The payload takes more than 64 MiB; also caught as Channels' own error."""


class _ErrorsOfChannels:
    """Turns an error into Channels' own where Channels has one."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, ChannelFull):
            raise FullChannel(str(error)) from error
        if isinstance(error, MessageTooLarge):
            raise TooLargeMessage(str(error)) from error


errors_of_channels: Final = _ErrorsOfChannels()  # a generator would cost each call a microsecond


def require_valid_group(name: object) -> str:
    """Return the name of a group, or raise `InvalidName`."""
    if isinstance(name, str) and len(name) <= _LONGEST_GROUP and _GROUP.fullmatch(name):
        return str.__str__(name)
    raise InvalidName(
        f"{shown(name)} is no group: a group is a str of 1 to {_LONGEST_GROUP} ASCII letters, digits and '-_.'"
    )


def to_group(packer: Packer, group: object, message: dict[str, Any], exclude: str | None) -> Outgoing:
    """Return a message to a group; raises as the checks and `Packer.to_topic` do."""
    topic = require_valid_group(group)
    require_message(message)
    return packer.to_topic(topic, message, exclude=None if exclude is None else require_valid_channel(exclude))


def to_channel(packer: Packer, channel: object, message: dict[str, Any]) -> Outgoing:
    """Return a message to a channel; raises as the checks and `Packer.to_channel` do."""
    name = require_valid_channel(channel)
    require_message(message)
    return packer.to_channel(name, message)
