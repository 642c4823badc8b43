"""Delivers waiting messages: while one batch is on its way, the next one collects."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgchannels.database.connections import Connections
from pgchannels.database.driver import DriverConnection
from pgchannels.database.extent import Extent
from pgchannels.database.failures import (
    is_notification_queue_full,
    is_of_notifications,
    is_passing,
    is_too_late,
    is_undone,
)
from pgchannels.database.retry import Backoff
from pgchannels.database.statements.nodes import remove_ended_nodes
from pgchannels.database.statements.reading import extent
from pgchannels.database.statements.sending import deliver
from pgchannels.database.wording import advice, explained, in_words
from pgchannels.errors import (
    ChannelFull,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    LayerClosed,
    PgChannelsError,
    channel_full,
)
from pgchannels.messages import Gap, GapReason
from pgchannels.names import queue_of_address
from pgchannels.sending.backlog import Backlog, fail, notification_parts
from pgchannels.sending.outgoing import Outgoing

_ATTEMPT_SECONDS: Final = 10
_SLOWEST_BYTES_PER_SECOND: Final = 1024 * 1024
_CRASHED: Final = (
    "the database crashed, or another server took over, while the message was on its way: it may have been sent,"
    " and what was in the log is lost"
)
_FORGOTTEN: Final = (
    "the connection was lost while the message was on its way, and the database could not be reached for as long as it"
    " remembers which messages it took: it may have been sent"
)
# Notifications that all have read leave the queue only when somebody looks; while it is full, NOTIFY does not.
_FORGET_READ_NOTIFICATIONS: Final = "SELECT pg_catalog.pg_notification_queue_usage()"
# A commit whose connection was lost may be visible before a synchronous standby has it. That a repeated call finds it
# writes nothing, so it would not wait; this writes a few bytes behind it.
_WAIT_FOR_EARLIER_COMMITS: Final = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgchannels', '')"


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A batch that may have been committed: in which log, the last ids known of it, and until when to retry.

    `seen_until` is the id of an earlier batch of the same writer, which was committed; `heard_of` may be of any.

    The log remembers the number of a batch for the retention, from the first attempt on. Until then, by the loop's
    clock and by the database's, the batch may be retried.
    """

    identity: int
    seen_until: int
    heard_of: int
    until: float
    database_until: float


class Writer:
    """Delivers messages in the order of the calls to `write`, on a connection of its own, or a shared one."""

    def __init__(
        self,
        connections: Connections,
        *,
        expiry_seconds: float,
        timeout_seconds: float,
        retention_seconds: float,
        valid_until: Callable[[], float],
        on_dropped: Callable[[Gap], None],
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
        self._on_dropped = on_dropped
        self._on_sent = on_sent
        self._on_connected = on_connected
        self._idle_seconds = idle_seconds
        self._backlog = Backlog(timeout_seconds=timeout_seconds)
        self._backoff = Backoff()  # one for all batches: a burst of failures is logged once
        self._connection = connections.hold_to_write()
        self._prepared: DriverConnection | None = None
        self._statement: PreparedStatement[asyncpg.Record] | None = None
        self._who_fills_queue: str | None = None  # from the server's warnings, some seconds apart

    def write(self, outgoing: Outgoing) -> Awaitable[int]:
        """Send one message; the result is its id once it is committed. Cancelling this does not unsend the message.

        :raises ChannelFull: as many messages as its capacity are waiting.
        :raises DatabaseUnavailable: the database did not answer in time.
        :raises LayerClosed: the writer was closed.
        """
        return self._backlog.add(outgoing)

    def write_many(self, outgoing: Sequence[Outgoing]) -> Awaitable[list[int]]:
        """Send messages in their order; raises as `write` if one of them was not sent."""
        return self._backlog.add_many(outgoing)

    async def open(self) -> None:
        """Connect, so that the first message need not wait for it."""
        async with self._connection.turn:
            await self._open_prepared()

    async def run(self) -> None:
        """Send until closed and nothing waits; if cancelled, fail the rest."""
        try:
            while self._backlog or not self._backlog.is_closed:
                if self._backlog:
                    await self._send(self._backlog.take_batch())
                else:
                    await self._wait_for_work()
        finally:
            await self.disconnect()

    def close(self) -> None:
        """Accept no more messages; `run` ends when the waiting ones are sent."""
        self._backlog.close()

    async def disconnect(self) -> None:
        """Accept no more messages, fail those not sent, drop the connection."""
        self._backlog.close()
        while self._backlog:
            fail(self._backlog.take_batch(), LayerClosed("the layer was closed before the message was sent"))
        await self._connections.release(self._connection)

    async def _wait_for_work(self) -> None:
        try:
            async with asyncio.timeout(self._idle_seconds):
                await self._backlog.wait()
        except TimeoutError:
            await self._connections.release(self._connection)
            await self._backlog.wait()

    async def _send(self, batch: list[Outgoing]) -> None:
        try:
            delivered = await self._deliver(batch)
        except Exception as error:
            fail(batch, error)
        except asyncio.CancelledError:
            text = "the layer was closed while the message was on its way: it may have been sent"
            fail(batch, LayerClosed(text, may_have_been_sent=True))
            raise
        else:
            if delivered is not None:
                self._settle(batch, delivered)

    def _settle(self, batch: list[Outgoing], delivered: "asyncpg.Record") -> None:
        first_id, refused, dropped, repeated = delivered
        self._seen_until = first_id
        self._who_fills_queue = None
        if dropped:
            self._on_dropped(Gap(GapReason.CAPACITY, dropped))
        for number in refused or ():
            fail([batch[number - 1]], _full(batch[number - 1]))
        sent = {}
        for number, outgoing in enumerate(batch):
            if repeated and repeated[number]:
                message_id = repeated[number]  # of the first one with its key
            elif not refused or number + 1 not in refused:
                message_id = sent[outgoing.address] = first_id + number
            else:
                continue
            if not outgoing.sent.done():
                outgoing.sent.set_result(message_id)
        self._on_sent(sent)

    async def _deliver(self, batch: list[Outgoing]) -> "asyncpg.Record | None":
        token = secrets.randbits(63)  # tells a repeated call whether an earlier one was committed
        loop = asyncio.get_running_loop()
        self._backoff.begin_anew()
        doubt: _Doubt | None = None
        failure: Exception | None = None
        while deadline := self._give_up_overdue(batch, failure, maybe_sent=doubt is not None):
            begun, had_turn = doubt, False
            try:
                async with asyncio.timeout_at(min(deadline, doubt.until if doubt else deadline)), self._connection.turn:
                    had_turn = True
                    await self._open_prepared()
                    if is_notification_queue_full(failure):
                        await self._connection.fetch_in_turn(self._connections.text(remove_ended_nodes))
                        await self._connection.fetch_in_turn(_FORGET_READ_NOTIFICATIONS)
                    if doubt is not None:
                        self._require_memory(doubt)
                    begun = doubt or self._doubt_from_now()
                    valid_until = min(self._valid_until(), begun.database_until)
                    known_until = 0 if doubt else max(begun.seen_until, begun.heard_of)  # a repeated call is looked up
                    delivered = await self._run(token, batch, valid_until=valid_until, known_until=known_until)
                    if doubt is not None:
                        await self._connection.fetch_in_turn(_WAIT_FOR_EARLIER_COMMITS)
                    return delivered
            except Exception as error:
                if isinstance(error, PgChannelsError) and (doubt is None or not isinstance(error, ConfigurationError)):
                    raise
                if failure is None or not isinstance(error, TimeoutError):  # our own timeout explains nothing
                    failure = error
                if not is_undone(error):
                    if had_turn:  # else what it runs is not of this writer
                        self._connection.leave()
                    if not is_passing(error):
                        refusal = str(explained(error, self._connections.place))
                        raise DatabaseRefused(refusal, may_have_been_sent=doubt is not None) from error
                    if not is_too_late(error):
                        doubt = begun
                    elif doubt is not None:  # too late by the database's clock, which was set
                        raise DatabaseUnavailable(_FORGOTTEN, may_have_been_sent=True) from error
                if doubt is not None and doubt.until <= loop.time():
                    raise DatabaseUnavailable(_FORGOTTEN, may_have_been_sent=True) from error
                remaining = deadline - loop.time()
                await self._backoff.pause_after(
                    error, f"could not send {len(batch)} messages", at_most_seconds=remaining
                )
        return None

    def _doubt_from_now(self) -> "_Doubt":
        assert self._log is not None
        now = asyncio.get_running_loop().time()
        return _Doubt(
            self._log.identity,
            self._seen_until,
            self._log.last_id,
            now + self._retention_seconds,
            self._connections.database_time() + self._retention_seconds,
        )

    def _require_memory(self, doubt: "_Doubt") -> None:
        """Require that the log is still the one that a batch may be in."""
        assert self._log is not None
        if not self._log.continues(doubt.identity, doubt.seen_until, heard_of=doubt.heard_of):
            raise DatabaseUnavailable(_CRASHED, may_have_been_sent=True)

    def _give_up_overdue(self, batch: list[Outgoing], failure: Exception | None, *, maybe_sent: bool) -> float | None:
        """Fail the messages that have waited too long; return the deadline of the next one, if there is one."""
        now = asyncio.get_running_loop().time()
        if batch[0].deadline > now:
            return batch[0].deadline
        overdue = [outgoing for outgoing in batch if outgoing.deadline <= now]
        fail(overdue, self._unavailable(failure, may_have_been_sent=maybe_sent))
        if not maybe_sent:
            del batch[: len(overdue)]  # a batch that may have been sent is repeated unchanged, or not at all
        fail(self._backlog.take_overdue(now), self._unavailable(failure, may_have_been_sent=False))
        return next((outgoing.deadline for outgoing in batch if outgoing.deadline > now), None)

    async def _run(
        self, token: int, batch: list[Outgoing], *, valid_until: float, known_until: int
    ) -> "asyncpg.Record":
        addresses = [outgoing.address for outgoing in batch]
        channels = [outgoing.channel for outgoing in batch]
        capacities = [outgoing.capacity for outgoing in batch]
        envelopes = [outgoing.envelope for outgoing in batch]
        keys = [outgoing.key for outgoing in batch]
        expiries = [outgoing.expiry_seconds for outgoing in batch]
        with self._connection.left_when_lost():
            delivered = await self._call(
                token,
                valid_until,
                addresses,
                channels if any(channels) else None,
                envelopes,
                capacities if any(capacities) else None,
                notification_parts(batch),
                self._expiry_seconds,
                known_until,
                keys if any(keys) else None,
                expiries if any(expiries) else None,
                timeout=_ATTEMPT_SECONDS + sum(map(len, envelopes)) / _SLOWEST_BYTES_PER_SECOND,
            )
        assert delivered is not None
        return delivered

    async def _call(self, *values: object, timeout: float) -> "asyncpg.Record | None":  # noqa: ASYNC109
        if self._statement is not None:
            return await self._statement.fetchrow(*values, timeout=timeout)
        async with asyncio.timeout(timeout):
            connection = await self._connection.opened()
            return await connection.fetchrow(self._connections.text(deliver), *values)

    async def _open_prepared(self) -> None:
        connection = await self._connection.opened()
        if connection is not self._prepared:
            with self._connection.left_when_lost():
                await self._prepare(connection)
            self._prepared = connection

    async def _prepare(self, connection: DriverConnection) -> None:
        await self._on_connected(connection)
        if not self._connections.is_sessionless:
            self._statement = await connection.prepare(self._connections.text(deliver))
        row = await connection.fetchrow(self._connections.text(extent))  # ends the transaction that preparing begins
        assert row is not None
        self._log = Extent.from_row(row)
        connection.add_log_listener(self._note_warning)

    def _note_warning(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        if is_of_notifications(message):
            self._who_fills_queue = message.detail

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


def _full(outgoing: Outgoing) -> ChannelFull:
    return channel_full(outgoing.channel or queue_of_address(outgoing.address), outgoing.capacity)
