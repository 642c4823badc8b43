"""Sends what all callers of a loop hand in: while one batch is on its way, the next one gathers."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgchannels.database.connections import Connections, driver_text, is_connection_failure
from pgchannels.database.statements.sending import deliver
from pgchannels.database.tables import LARGEST_BATCH, Schema
from pgchannels.delivery.backoff import Backoff
from pgchannels.errors import DatabaseRefused, DatabaseUnavailable, LayerClosed

_MESSAGES_PER_BATCH: Final = LARGEST_BATCH
_BYTES_PER_BATCH: Final = 256 * 1024
_ATTEMPT_SECONDS: Final = 10
_MOST_BYTES_WAITING: Final = 64 * 1024 * 1024

logger = logging.getLogger("pgchannels")


@dataclass(slots=True)
class _Outgoing:
    address: str
    channel: str | None
    envelope: bytes
    sent: "asyncio.Future[int]"


class Writer:
    """Delivers messages in the order of the calls to `write`, on a connection of its own."""

    def __init__(
        self,
        connections: Connections,
        schema: Schema,
        *,
        expiry_seconds: float,
        timeout_seconds: float,
        on_sent: Callable[[str, int], None],
    ) -> None:
        self._connections = connections
        self._deliver = driver_text(deliver(schema))
        self._expiry_seconds = expiry_seconds
        self._timeout_seconds = timeout_seconds
        self._on_sent = on_sent
        self._waiting: deque[_Outgoing] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._is_closed = False
        self._connection: asyncpg.Connection[Any] | None = None
        self._statement: PreparedStatement[Any] | None = None

    async def write(self, address: str, channel: str | None, envelope: bytes) -> int:
        """Send one message and return its id once it is committed. Cancelling the call does not unsend it.

        :raises DatabaseUnavailable: the database did not answer in time.
        :raises LayerClosed: the writer was closed.
        """
        if not self._room.is_set():
            await self._wait_for_room()
        return await self._put(address, channel, envelope)

    async def write_many(self, messages: Sequence[tuple[str, bytes]]) -> list[int]:
        """Send envelopes to addresses, in their order; when it raises as `write` does, some may have been sent."""
        if not self._room.is_set():
            await self._wait_for_room()
        return await asyncio.gather(*[self._put(address, None, envelope) for address, envelope in messages])

    async def open(self) -> None:
        """Connect, so that the first message need not wait for it."""
        await self._prepared()

    async def run(self) -> None:
        """Send what is waiting, until `close` and everything is sent; cancelled, fail the rest."""
        try:
            while self._waiting or not self._is_closed:
                if self._waiting:
                    await self._send(self._take_batch())
                else:
                    self._work.clear()
                    await self._work.wait()
        finally:
            self.disconnect()

    def close(self) -> None:
        """Take no more messages; `run` ends when those that wait are sent."""
        self._is_closed = True
        self._work.set()

    def disconnect(self) -> None:
        """Take no more messages, fail whatever was not sent, drop the connection."""
        self._is_closed = True
        while self._waiting:
            _fail(self._take_batch(), LayerClosed("the layer was closed before the message was sent"))
        self._drop_connection()

    def _put(self, address: str, channel: str | None, envelope: bytes) -> "asyncio.Future[int]":
        if self._is_closed:
            raise LayerClosed("the layer is closed: nothing can be sent any more")
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Outgoing(address, channel, envelope, sent))
        self._waiting_bytes += len(envelope)
        if self._waiting_bytes > _MOST_BYTES_WAITING:
            self._room.clear()
        self._work.set()
        return sent

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._room.wait()
        except TimeoutError:
            raise DatabaseUnavailable(
                f"more than {_MOST_BYTES_WAITING:,} bytes of messages have waited for the database"
                f" for {self._timeout_seconds} seconds: the message was not sent"
            ) from None

    def _take_batch(self) -> list[_Outgoing]:
        batch: list[_Outgoing] = []
        size = 0
        while self._waiting and len(batch) < _MESSAGES_PER_BATCH:
            size += len(self._waiting[0].envelope)
            if batch and size > _BYTES_PER_BATCH:
                break
            batch.append(self._waiting.popleft())
        self._waiting_bytes -= sum(len(outgoing.envelope) for outgoing in batch)
        if self._waiting_bytes <= _MOST_BYTES_WAITING:
            self._room.set()
        return batch

    async def _send(self, batch: list[_Outgoing]) -> None:
        try:
            first_id = await self._deliver_once(batch)
        except Exception as error:
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, LayerClosed("the layer was closed while the message was on its way: it may have been sent"))
            raise
        else:
            for number, outgoing in enumerate(batch):
                self._on_sent(outgoing.address, first_id + number)
                if not outgoing.sent.done():
                    outgoing.sent.set_result(first_id + number)

    async def _deliver_once(self, batch: list[_Outgoing]) -> int:
        token = secrets.randbits(63)  # tells a repeated call whether the first one was committed
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        backoff = Backoff()
        attempted = False
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    statement = await self._prepared()
                    repeated, attempted = attempted, True
                    return await self._run(statement, token, batch, repeated=repeated)
            except Exception as error:
                self._drop_connection()
                if not is_connection_failure(error):
                    raise DatabaseRefused(f"the database refused the message: {error}") from error
                remaining = deadline - asyncio.get_running_loop().time()
                if remaining <= 0:
                    raise self._unavailable(may_have_been_sent=attempted) from error
                logger.warning("could not send %d messages, will try again: %r", len(batch), error)
            await backoff.pause(at_most_seconds=remaining)

    async def _run(
        self, statement: "PreparedStatement[Any]", token: int, batch: list[_Outgoing], *, repeated: bool
    ) -> int:
        first_id: int = await statement.fetchval(
            token,
            [outgoing.address for outgoing in batch],
            [outgoing.channel for outgoing in batch],
            [outgoing.envelope for outgoing in batch],
            self._expiry_seconds,
            repeated,
            timeout=_ATTEMPT_SECONDS,
        )
        return first_id

    async def _prepared(self) -> "PreparedStatement[Any]":
        if self._connection is None or self._connection.is_closed() or self._statement is None:
            self._connection = await self._connections.hold()
            self._statement = await self._connection.prepare(self._deliver)
        return self._statement

    def _drop_connection(self) -> None:
        connection, self._connection, self._statement = self._connection, None, None
        if connection is not None:
            connection.terminate()

    def _unavailable(self, *, may_have_been_sent: bool) -> DatabaseUnavailable:
        fate = "it may have been sent all the same" if may_have_been_sent else "it was not sent"
        return DatabaseUnavailable(
            f"the database did not take the message within send_timeout={self._timeout_seconds} seconds: {fate}",
            may_have_been_sent=may_have_been_sent,
        )


def _fail(batch: list[_Outgoing], error: Exception) -> None:
    for outgoing in batch:
        if not outgoing.sent.done():
            outgoing.sent.set_exception(error)
