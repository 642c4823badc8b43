"""What every library must do to be measured: the works know it by these verbs alone."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are; None where one is not there."""

    postgres: str
    redis: str | None = None
    nats: str | None = None


class CannotDo(Exception):
    """A contestant has not what a work needs; the text says what."""


class Member(ABC):
    """One receiver of a group."""

    @abstractmethod
    async def receive(self) -> Message:
        """The next message to the group, waiting for one."""

    @abstractmethod
    async def leave(self) -> None:
        """Leave the group."""


class Contestant(ABC):
    """One library in one event loop of one process.

    :param capacity: how many messages may wait for one receiver, where the library has such a setting: more than
        any work sends, so that nothing is measured that was dropped.
    """

    def __init__(self, addresses: Addresses, *, capacity: int) -> None:
        self.addresses = addresses
        self.capacity = capacity

    async def open(self) -> None:
        """Connect, where the library asks for it; the others connect when they are first used."""
        return

    async def close(self) -> None:
        """Disconnect; whoever receives was cancelled before."""
        return

    @abstractmethod
    async def join(self, group: str) -> Member:
        """A new member of a group: it gets all that is published once this has returned."""

    @abstractmethod
    async def publish(self, group: str, message: Message) -> None:
        """Send a message to all members of a group, as safely as the library does it."""

    async def send(self, queue: str, message: Message) -> None:
        """Send a message to one of all who receive from a queue."""
        raise NotImplementedError

    async def receive(self, queue: str) -> Message:
        """The next message of a queue."""
        raise NotImplementedError
