"""Sends what all callers of a loop hand in: while one batch is on its way, the next one gathers."""

import asyncio
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgchannels.database.connections import Connections, DriverConnection
from pgchannels.database.extent import Extent
from pgchannels.database.failures import (
    advice,
    explained,
    in_words,
    is_notification_queue_full,
    is_of_notifications,
    is_passing,
    is_undone,
)
from pgchannels.database.retry import Backoff
from pgchannels.database.statements.reading import extent
from pgchannels.database.statements.sending import deliver
from pgchannels.database.tables import LARGEST_BATCH
from pgchannels.errors import ChannelFull, DatabaseRefused, DatabaseUnavailable, LayerClosed, PgChannelsError, copy_of
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.losses import Losses

_MESSAGES_PER_BATCH: Final = LARGEST_BATCH
_BYTES_PER_BATCH: Final = 256 * 1024
_ATTEMPT_SECONDS: Final = 10
_SLOWEST_BYTES_PER_SECOND: Final = 1024 * 1024
_MOST_BYTES_WAITING: Final = 64 * 1024 * 1024  # or a single message that takes more
_CRASHED: Final = (
    "the database crashed, or another server took over, while the message was on its way: it may have been sent,"
    " and what was in the log is lost"
)
_FORGOTTEN: Final = (
    "the connection was lost while the message was on its way, and the database could not be reached for as long as it"
    " remembers which messages it took: it may have been sent"
)
# What all have read stays in the queue until somebody looks: as long as it is full, nobody's notification does.
_FORGET_READ_NOTIFICATIONS: Final = "SELECT pg_catalog.pg_notification_queue_usage()"
_BYTES_BESIDE_ENVELOPE: Final = 512  # what a waiting message takes in memory, besides its bytes
_BYTES_PER_PART: Final = 5_600  # in base64, and with an address in front, less than the 8000 of a notification
_BYTES_BESIDE_PAYLOAD: Final = 92  # an id and a channel


@dataclass(slots=True)
class _Outgoing:
    address: str
    channel: str | None
    envelope: bytes
    capacity: int | None
    deadline: float
    sent: "asyncio.Future[int]"
    size: int


@dataclass(frozen=True, slots=True)
class _Doubt:
    """What is known of a batch that may have been committed: of which log, which ids of it were seen, and until when.

    The log remembers the numbers of its batches for the retention from the first attempt on: until then, by the clock
    of the loop and by that of the database, the batch may be tried again.
    """

    identity: int
    seen_until: int
    until: float
    database_until: float


class Writer:
    """Delivers messages in the order of the calls to `write`, on a connection of its own."""

    def __init__(
        self,
        connections: Connections,
        *,
        expiry_seconds: float,
        timeout_seconds: float,
        retention_seconds: float,
        valid_until: Callable[[], float],
        losses: Losses,
        on_sent: Callable[[Mapping[str, int]], None],
        on_connected: Callable[[DriverConnection], Awaitable[None]],
        idle_seconds: float | None = None,
    ) -> None:
        self._connections = connections
        self._log: Extent | None = None
        self._seen_until = 0
        self._expiry_seconds = expiry_seconds
        self._timeout_seconds = timeout_seconds
        self._retention_seconds = retention_seconds
        self._valid_until = valid_until
        self._note_dropped = losses.at("a queue in a topic")
        self._on_sent = on_sent
        self._on_connected = on_connected
        self._idle_seconds = idle_seconds
        self._waiting: deque[_Outgoing] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self._in_line = 0  # callers that wait for room, in the order of their calls
        self._turn = asyncio.Lock()  # of the first of them
        self._taken = asyncio.Event()  # something, so that there may be room
        self._is_closed = False
        self._connection = connections.hold(on_open=self._prepare)
        self._statement: PreparedStatement[asyncpg.Record] | None = None
        self._who_fills_queue: str | None = None  # as the server warns of it, some seconds apart

    def write(
        self, address: str, channel: str | None, envelope: bytes, *, capacity: int | None = None
    ) -> Awaitable[int]:
        """Send one message; the result is its id once it is committed. Cancelling it does not unsend the message.

        :param capacity: how many messages wait for the queue at most; for a channel any figure, None if it has room.
        :raises ChannelFull: as many wait.
        :raises DatabaseUnavailable: the database did not answer in time.
        :raises LayerClosed: the writer was closed.
        """
        outgoing = self._outgoing(address, channel, envelope, capacity)
        is_room = not self._in_line and self._has_room(outgoing.size)
        return self._put(outgoing) if is_room else self._write_in_turn(outgoing)

    def write_many(self, messages: Sequence[tuple[str, bytes]]) -> Awaitable[list[int]]:
        """Send envelopes to addresses, in their order; raises as `write` when one of them was not sent."""
        outgoing = [self._outgoing(address, None, envelope, None) for address, envelope in messages]
        if not self._in_line and self._fits(sum(one.size for one in outgoing)):
            return _all_ids([self._put(one) for one in outgoing])
        return self._write_many_in_turn(outgoing)

    async def open(self) -> None:
        """Connect, so that the first message need not wait for it."""
        await self._connection.opened()

    async def run(self) -> None:
        """Send what is waiting, until `close` and everything is sent; cancelled, fail the rest."""
        try:
            while self._waiting or not self._is_closed:
                if self._waiting:
                    await self._send(self._take_batch())
                else:
                    await self._wait_for_work()
        finally:
            await self.disconnect()

    def close(self) -> None:
        """Take no more messages; `run` ends when those that wait are sent."""
        self._is_closed = True
        self._work.set()

    async def disconnect(self) -> None:
        """Take no more messages, fail whatever was not sent, drop the connection."""
        self._is_closed = True
        while self._waiting:
            _fail(self._take_batch(), LayerClosed("the layer was closed before the message was sent"))
        await self._connection.close()

    def _outgoing(self, address: str, channel: str | None, envelope: bytes, capacity: int | None) -> _Outgoing:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        size = len(envelope) + _BYTES_BESIDE_ENVELOPE
        return _Outgoing(address, channel, envelope, capacity, deadline, loop.create_future(), size)

    async def _write_in_turn(self, outgoing: _Outgoing) -> int:
        await self._put_in_turn([outgoing])
        return await outgoing.sent

    async def _write_many_in_turn(self, outgoing: Sequence[_Outgoing]) -> list[int]:
        await self._put_in_turn(outgoing)
        return await _all_ids([one.sent for one in outgoing])

    async def _put_in_turn(self, outgoing: Sequence[_Outgoing]) -> None:
        """Put messages one by one as there is room, behind those of all earlier calls; fail what comes too late."""
        self._in_line += 1
        waiting = deque(outgoing)
        try:
            async with asyncio.timeout_at(outgoing[0].deadline), self._turn:
                while waiting:
                    await self._wait_for_room(waiting[0].size)
                    self._put(waiting.popleft())
        except TimeoutError:
            _fail(waiting, self._no_room())
        except LayerClosed as error:
            _fail(outgoing, error)
        except asyncio.CancelledError:
            for one in outgoing:
                one.sent.cancel()  # nobody looks what becomes of those that were put
            raise
        finally:
            self._in_line -= 1

    async def _wait_for_room(self, size: int) -> None:
        while not self._has_room(size):
            self._taken.clear()
            await self._taken.wait()

    def _has_room(self, size: int) -> bool:
        return not self._waiting or self._fits(size)  # one that is greater than all the room must come, too

    def _fits(self, size: int) -> bool:
        return self._waiting_bytes + size <= _MOST_BYTES_WAITING

    def _put(self, outgoing: _Outgoing) -> "asyncio.Future[int]":
        if self._is_closed:
            raise LayerClosed("the layer is closed: nothing can be sent any more")
        self._waiting.append(outgoing)
        self._waiting_bytes += outgoing.size
        self._work.set()
        return outgoing.sent

    async def _wait_for_work(self) -> None:
        self._work.clear()
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._work.wait()
        except TimeoutError:
            await self._connection.close()
            await self._work.wait()

    def _take_batch(self) -> list[_Outgoing]:
        batch: list[_Outgoing] = []
        waiting, size = self._waiting, 0
        while waiting and len(batch) < _MESSAGES_PER_BATCH:
            size += len(waiting[0].envelope)
            if batch and size > _BYTES_PER_BATCH:
                break
            batch.append(waiting.popleft())
        self._note_taken(batch)
        return batch

    def _note_taken(self, taken: list[_Outgoing]) -> None:
        self._waiting_bytes -= sum([outgoing.size for outgoing in taken])
        self._taken.set()

    async def _send(self, batch: list[_Outgoing]) -> None:
        try:
            delivered = await self._deliver(batch)
        except Exception as error:
            _fail(batch, error)
        except asyncio.CancelledError:
            text = "the layer was closed while the message was on its way: it may have been sent"
            _fail(batch, LayerClosed(text, may_have_been_sent=True))
            raise
        else:
            if delivered is not None:
                self._settle(batch, delivered)

    def _settle(self, batch: list[_Outgoing], delivered: "asyncpg.Record") -> None:
        first_id, refused, dropped = delivered
        self._seen_until = first_id
        if dropped:
            self._note_dropped(Gap(GapReason.CAPACITY, dropped))
        for number in refused or ():
            _fail([batch[number - 1]], _full(batch[number - 1]))
        sent = {}
        for number, outgoing in enumerate(batch):
            if not refused or number + 1 not in refused:
                sent[outgoing.address] = first_id + number
                if not outgoing.sent.done():
                    outgoing.sent.set_result(first_id + number)
        self._on_sent(sent)

    async def _deliver(self, batch: list[_Outgoing]) -> "asyncpg.Record | None":
        token = secrets.randbits(63)  # tells a repeated call whether an earlier one was committed
        backoff, loop = Backoff(), asyncio.get_running_loop()
        doubt: _Doubt | None = None
        failure: Exception | None = None
        while deadline := self._give_up_overdue(batch, failure, maybe_sent=doubt is not None):
            begun = doubt
            try:
                async with asyncio.timeout_at(min(deadline, doubt.until if doubt else deadline)):
                    await self._connection.opened()
                    if is_notification_queue_full(failure):
                        await self._connection.fetch(_FORGET_READ_NOTIFICATIONS)
                    if doubt is not None:
                        self._require_memory(doubt)
                    begun = doubt or self._doubt_from_now()
                    valid_until = min(self._valid_until(), begun.database_until)
                    known_until = 0 if doubt else begun.seen_until  # a repeated call is looked up
                    return await self._run(token, batch, valid_until=valid_until, known_until=known_until)
            except PgChannelsError:
                raise
            except Exception as error:
                if failure is None or not isinstance(error, TimeoutError):  # our own impatience explains nothing
                    failure = error
                if not is_undone(error):
                    self._connection.leave()
                    if not is_passing(error):
                        refusal = str(explained(error, self._connections.place))
                        raise DatabaseRefused(refusal, may_have_been_sent=doubt is not None) from error
                    doubt = begun
                if doubt is not None and doubt.until <= loop.time():
                    raise DatabaseUnavailable(_FORGOTTEN, may_have_been_sent=True) from error
                remaining = deadline - loop.time()
                await backoff.pause_after(error, f"could not send {len(batch)} messages", at_most_seconds=remaining)
        return None

    def _doubt_from_now(self) -> "_Doubt":
        assert self._log is not None
        now = asyncio.get_running_loop().time()
        return _Doubt(
            self._log.identity,
            max(self._seen_until, self._log.last_id),
            now + self._retention_seconds,
            self._connections.database_time() + self._retention_seconds,
        )

    def _require_memory(self, doubt: "_Doubt") -> None:
        """Require that the log is still the one that a batch may be in."""
        assert self._log is not None
        if not self._log.continues(doubt.identity, doubt.seen_until):
            raise DatabaseUnavailable(_CRASHED, may_have_been_sent=True)

    def _give_up_overdue(self, batch: list[_Outgoing], failure: Exception | None, *, maybe_sent: bool) -> float | None:
        """Fail the messages that have waited too long; returns when the next one will have, if there is one."""
        now = asyncio.get_running_loop().time()
        if batch[0].deadline > now:
            return batch[0].deadline
        overdue = [outgoing for outgoing in batch if outgoing.deadline <= now]
        _fail(overdue, self._unavailable(failure, may_have_been_sent=maybe_sent))
        if not maybe_sent:
            del batch[: len(overdue)]  # what was perhaps sent is repeated as it was, or not at all
        while self._waiting and self._waiting[0].deadline <= now:
            taken = [self._waiting.popleft()]
            self._note_taken(taken)
            _fail(taken, self._unavailable(failure, may_have_been_sent=False))
        return next((outgoing.deadline for outgoing in batch if outgoing.deadline > now), None)

    async def _run(
        self, token: int, batch: list[_Outgoing], *, valid_until: float, known_until: int
    ) -> "asyncpg.Record":
        assert self._statement is not None
        addresses = [outgoing.address for outgoing in batch]
        channels = [outgoing.channel for outgoing in batch]
        capacities = [outgoing.capacity for outgoing in batch]
        envelopes = [outgoing.envelope for outgoing in batch]
        with self._connection.left_when_lost():
            delivered = await self._statement.fetchrow(
                token,
                valid_until,
                addresses,
                channels if any(channels) else None,
                envelopes,
                capacities if any(capacities) else None,
                notification_parts(addresses, envelopes),
                self._expiry_seconds,
                known_until,
                timeout=_ATTEMPT_SECONDS + sum(map(len, envelopes)) / _SLOWEST_BYTES_PER_SECOND,
            )
        assert delivered is not None
        return delivered

    async def _prepare(self, connection: DriverConnection) -> None:
        await self._on_connected(connection)
        row = await connection.fetchrow(self._connections.text(extent))
        assert row is not None
        self._log = Extent.from_row(row)
        self._statement = await connection.prepare(self._connections.text(deliver))
        connection.add_log_listener(self._note_warning)

    def _note_warning(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        if is_of_notifications(message):
            self._who_fills_queue = message.detail

    def _no_room(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"as many bytes of messages have waited for the database as may, {_MOST_BYTES_WAITING:,},"
            f" for {self._timeout_seconds:g} seconds: the message was not sent"
        )

    def _unavailable(self, failure: Exception | None, *, may_have_been_sent: bool) -> DatabaseUnavailable:
        fate = "it may have been sent all the same" if may_have_been_sent else "it was not sent"
        within = f"within send_timeout={self._timeout_seconds:g} seconds"
        text = f"{self._connections.place} did not take the message {within}: {fate}"
        return DatabaseUnavailable(text + self._reason(failure), may_have_been_sent=may_have_been_sent)

    def _reason(self, failure: Exception | None) -> str:
        if failure is None:
            return ""
        detail = self._who_fills_queue if is_notification_queue_full(failure) else None
        return f" ({in_words(failure)}{advice(failure)}{'. ' + detail if detail else ''})"


async def _all_ids(sent: "list[asyncio.Future[int]]") -> list[int]:
    return _ids(await asyncio.gather(*sent, return_exceptions=True))


def _ids(outcomes: Sequence[int | BaseException]) -> list[int]:
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if not failures:
        return [outcome for outcome in outcomes if isinstance(outcome, int)]
    first = failures[0]
    if isinstance(first, PgChannelsError) and len(failures) < len(outcomes):
        text = f"{first}; {len(outcomes) - len(failures)} of {len(outcomes)} messages were sent"
        raise type(first)(text, may_have_been_sent=True) from first
    raise next((failure for failure in failures if getattr(failure, "may_have_been_sent", False)), first)


def notification_parts(addresses: Sequence[str], envelopes: Sequence[bytes]) -> list[int]:
    """Which consecutive messages to one address are told in one notification, see `deliver.sql`.

    For the first of each the number of the last, counted from 1, and 0 for the others.
    """
    parts = [0] * len(addresses)
    first, address, room = 0, "", 0
    for number, (next_address, envelope) in enumerate(zip(addresses, envelopes, strict=True)):
        size = len(envelope) + _BYTES_BESIDE_PAYLOAD
        room -= size
        if room < 0 or next_address != address:
            first, address, room = number, next_address, _BYTES_PER_PART - size
        parts[first] = number + 1
    return parts


def _fail(batch: Iterable[_Outgoing], error: Exception) -> None:
    for outgoing in batch:
        if not outgoing.sent.done():
            outgoing.sent.set_exception(copy_of(error))


def _full(outgoing: _Outgoing) -> ChannelFull:
    where = outgoing.channel or outgoing.address
    return ChannelFull(f"{where} is full: capacity={outgoing.capacity} messages wait for it, this one was not sent")
