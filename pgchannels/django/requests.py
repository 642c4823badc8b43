"""What Channels asks of a sender: checked at once, carried out by whichever sender there is."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from channels import exceptions
from channels.layers import BaseChannelLayer

from pgchannels.errors import ChannelFull, InvalidMessage, MessageTooLarge
from pgchannels.sender import Sender

Request: TypeAlias = Callable[[Sender], Awaitable[Any]]


def send(layer: BaseChannelLayer, channel: str, message: dict[str, Any]) -> Request:
    """Send a message to a channel."""
    layer.require_valid_channel_name(channel)
    _require_dict(message)
    return lambda sender: sender.send(channel, message)


def group_send(layer: BaseChannelLayer, group: str, message: dict[str, Any]) -> Request:
    """Send a message to a group."""
    layer.require_valid_group_name(group)
    _require_dict(message)
    return lambda sender: sender.publish(group, message)


def group_add(layer: BaseChannelLayer, group: str, channel: str) -> Request:
    """Add a channel to a group."""
    layer.require_valid_group_name(group)
    layer.require_valid_channel_name(channel)
    return lambda sender: sender.join(group, channel)


def group_discard(layer: BaseChannelLayer, group: str, channel: str) -> Request:
    """Remove a channel from a group."""
    layer.require_valid_group_name(group)
    layer.require_valid_channel_name(channel)
    return lambda sender: sender.leave(group, channel)


def flush(sender: Sender) -> Awaitable[None]:
    """Delete every message and membership."""
    return sender.flush()


@contextmanager
def errors_of_channels() -> Iterator[None]:
    """Raise the errors that Channels has names for as Channels' own."""
    try:
        yield
    except ChannelFull as error:
        raise exceptions.ChannelFull(str(error)) from error
    except MessageTooLarge as error:
        raise exceptions.MessageTooLarge(str(error)) from error


def _require_dict(message: object) -> None:
    if not isinstance(message, dict):
        raise InvalidMessage(f"a message of Channels is a dict, not a {type(message).__name__}")
