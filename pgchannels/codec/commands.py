"""The commands that nodes send each other through the log, as payloads of messages to a node's own address."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from pgchannels.errors import UnreadableMessage


@dataclass(frozen=True, slots=True)
class Join:
    """From now on, give a channel of the node every message to the address of a topic."""

    address: str
    channel: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Undo `Join`."""

    address: str
    channel: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Forget every earlier message and membership."""


Command: TypeAlias = Join | Leave | Flush


def payload_of(command: Command) -> dict[str, Any]:
    """Return the payload that carries a command."""
    match command:
        case Join(address, channel):
            return {"join": [address, channel]}
        case Leave(address, channel):
            return {"leave": [address, channel]}
        case Flush():
            return {"flush": True}


def command_in(payload: Any) -> Command:
    """Return the command that a payload carries.

    :raises UnreadableMessage: this version does not know the command.
    """
    match payload:
        case {"join": [str(address), str(channel)]}:
            return Join(address, channel)
        case {"leave": [str(address), str(channel)]}:
            return Leave(address, channel)
        case {"flush": True}:
            return Flush()
    raise UnreadableMessage("ignored a command that this version does not know")
