"""The verbs of a sender, each at the server that carries what it is about."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from pgchannels.errors import PgChannelsError, copy_of
from pgchannels.names import topic_address
from pgchannels.process.shared_sender import BlockingSender
from pgchannels.sending.outgoing import Outgoing
from pgchannels.servers.placement import Placement

T = TypeVar("T")


class ServerSender(Protocol):
    """What sends to one server."""

    def send(self, outgoing: Outgoing) -> Awaitable[int]:
        """See `Sender.send`."""

    def send_many(self, outgoing: Sequence[Outgoing]) -> Awaitable[list[int]]:
        """See `Sender.send_many`."""

    def join(self, topic: str, channel: str) -> Awaitable[None]:
        """See `Sender.join`."""

    def leave(self, topic: str, channel: str) -> Awaitable[None]:
        """See `Sender.leave`."""

    def flush(self) -> Awaitable[None]:
        """See `Sender.flush`."""


class JoiningSender(Protocol):
    """What sends to one channel on one server, and adds it to topics."""

    def send(self, outgoing: Outgoing) -> Awaitable[int]:
        """See `Sender.send`."""

    def join(self, topic: str, channel: str) -> Awaitable[None]:
        """See `Sender.join`."""


class PlacedSender:
    """Sends from one event loop; a server that is away raises for its own messages only.

    :param sender_at: what sends to a server.
    """

    def __init__(self, placement: Placement, prefix: str, sender_at: Callable[[str], ServerSender]) -> None:
        self._placement = placement
        self._prefix = prefix
        self._sender_at = sender_at

    def send(self, outgoing: Outgoing) -> Awaitable[int]:
        """See `Sender.send`."""
        return self._sender_at(self._placement.server_of(outgoing.address)).send(outgoing)

    async def send_many(self, outgoing: Sequence[Outgoing]) -> list[int]:
        """Send messages, those for each server in their order; return their ids in the order of the messages.

        If a server fails, the messages for the others are sent anyway.
        """
        batches = batches_by_server(self._placement, outgoing)
        sent = await asyncio.gather(
            *(self._sender_at(server).send_many(list(batch.values())) for server, batch in batches.items()),
            return_exceptions=True,
        )
        return in_order(batches, sent)

    async def leave(self, topic: str, channel: str) -> None:
        """See `Sender.leave`."""
        await all_of(self._sender_at(server).leave(topic, channel) for server in self._servers_of(topic))

    async def flush(self) -> None:
        """See `Sender.flush`."""
        await all_of(self._sender_at(server).flush() for server in self._placement.names)

    def _servers_of(self, topic: str) -> Sequence[str]:
        return self._placement.servers_of(topic_address(self._prefix, topic))


class PlacedChannelSender:
    """Sends to a channel, and adds it to topics.

    :param sender_at: what does so at a server.
    """

    def __init__(self, placement: Placement, prefix: str, sender_at: Callable[[str], JoiningSender]) -> None:
        self._placement = placement
        self._prefix = prefix
        self._sender_at = sender_at

    def send(self, outgoing: Outgoing) -> Awaitable[int]:
        """See `Sender.send`."""
        return self._sender_at(self._placement.server_of(outgoing.address)).send(outgoing)

    async def join(self, topic: str, channel: str) -> None:
        """See `Sender.join`."""
        servers = self._placement.servers_of(topic_address(self._prefix, topic))
        await all_of(self._sender_at(server).join(topic, channel) for server in servers)


class BlockingPlacedSender:
    """The same for threads without an event loop; each call blocks, one server after another."""

    def __init__(self, placement: Placement, prefix: str, senders: Callable[[str], BlockingSender]) -> None:
        self._placement = placement
        self._prefix = prefix
        self._sender_at = senders

    def send(self, outgoing: Outgoing) -> int:
        """See `Sender.send`."""
        return self._sender_at(self._placement.server_of(outgoing.address)).send(outgoing)

    def send_many(self, outgoing: Sequence[Outgoing]) -> list[int]:
        """See `PlacedSender.send_many`."""
        batches = batches_by_server(self._placement, outgoing)
        sent: list[list[int] | BaseException] = []
        for server, batch in batches.items():
            try:
                sent.append(self._sender_at(server).send_many(list(batch.values())))
            except PgChannelsError as error:
                sent.append(error)
        return in_order(batches, sent)

    def join(self, topic: str, channel: str) -> None:
        """See `Sender.join`."""
        for server in self._servers_of(topic):
            self._sender_at(server).join(topic, channel)

    def leave(self, topic: str, channel: str) -> None:
        """See `Sender.leave`."""
        for server in self._servers_of(topic):
            self._sender_at(server).leave(topic, channel)

    def flush(self) -> None:
        """See `Sender.flush`."""
        for server in self._placement.names:
            self._sender_at(server).flush()

    def remove_deaf_nodes(self) -> None:
        """See `Sender.remove_deaf_nodes`."""
        for server in self._placement.names:
            self._sender_at(server).remove_deaf_nodes()

    def _servers_of(self, topic: str) -> Sequence[str]:
        return self._placement.servers_of(topic_address(self._prefix, topic))


Batches = Mapping[str, Mapping[int, Outgoing]]


def batches_by_server(placement: Placement, outgoing: Sequence[Outgoing]) -> Batches:
    """Return the messages for each server, by their places in the sequence."""
    batches: dict[str, dict[int, Outgoing]] = {}
    for place, message in enumerate(outgoing):
        batches.setdefault(placement.server_of(message.address), {})[place] = message
    return batches


def in_order(batches: Batches, sent: Sequence[list[int] | BaseException]) -> list[int]:
    """Return the ids of all messages in their order, or raise the first error.

    :raises PgChannelsError: with `may_have_been_sent`, if another server has taken its messages.
    """
    ids: dict[int, int] = {}
    for batch, outcome in zip(batches.values(), sent, strict=True):
        if isinstance(outcome, BaseException):
            raise _of_all(outcome, sent)
        ids |= zip(batch, outcome, strict=True)
    return [ids[place] for place in sorted(ids)]


async def all_of(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Run calls to several servers; when all have ended, return their results or raise the first error."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def _of_all(error: BaseException, sent: Sequence[list[int] | BaseException]) -> BaseException:
    copy = copy_of(error)
    if isinstance(copy, PgChannelsError):
        copy.may_have_been_sent = any(getattr(outcome, "may_have_been_sent", True) for outcome in sent)
    return copy
