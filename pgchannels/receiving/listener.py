"""Listens for one node, across lost connections."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg

from pgchannels.database.connections import Connections
from pgchannels.database.driver import DriverConnection
from pgchannels.database.failures import NOTIFICATION_QUEUE_FULL, NothingHeard, is_connection_failure
from pgchannels.database.retry import repeat
from pgchannels.database.statements.nodes import listen
from pgchannels.options import Options
from pgchannels.receiving.losses import Bursts

_OPEN_TIMEOUT_SECONDS: Final = 30
_SHORTEST_PROBE_SECONDS: Final = 1

logger: logging.Logger = logging.getLogger("pgchannels")


class Probe(Protocol):
    """Runs a statement with a token after its arguments, and returns its row once the token was heard.

    If its column `is_told` is false, no token is sent: PostgreSQL has no room for it.
    """

    async def __call__(
        self, text: str, *arguments: object, behind_token: tuple[object, ...] = ()
    ) -> "asyncpg.Record": ...


class Hearer(Protocol):
    """Takes what arrives on the listening connection."""

    def begin(self) -> None:
        """Record that a connection begins to listen, and hold what it receives until `beat` has first returned."""

    async def beat(self, probe: Probe) -> None:
        """Keep the node alive in the database, with a statement that also sends the node a token."""

    def hear(self, text: str) -> None:
        """Take a notification; never waits."""

    def lost(self) -> None:
        """Record that the connection was lost; another one is being made."""

    def back(self) -> None:
        """Record that another connection listens."""


class Listener:
    """Keeps one connection on LISTEN, and replaces it whenever it is lost, or nothing arrives on it any more.

    :param beat_due: set to request a heartbeat before it is due.
    :param check: called with each new connection, before it listens.
    """

    def __init__(
        self,
        connections: Connections,
        node: UUID,
        hearer: Hearer,
        options: Options,
        *,
        beat_due: asyncio.Event,
        check: Callable[[DriverConnection], Awaitable[None]] | None = None,
    ) -> None:
        self._connections = connections
        self._check = check
        self._held = connections.hold(on_open=self._listen)
        self._connection: DriverConnection | None = None
        self._node = node
        self._hearer = hearer
        self._heartbeat_seconds = options.heartbeat
        self._probe_seconds = max(options.heartbeat, _SHORTEST_PROBE_SECONDS)
        self._token = ""
        self._heard_token = asyncio.Event()
        self._is_answered = False  # the probe, though perhaps its token was not heard
        self._heard_count = 0
        self._lost = asyncio.Event()
        self.beat_due: asyncio.Event = beat_due
        self._is_interrupted = False
        self._bursts = Bursts()
        self._is_new = False  # the connection: no notification older than its LISTEN waits to be read
        self.reconnected: int = 0

    async def open(self) -> None:
        """Listen, and send the first heartbeat; raises what the database raises."""
        async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
            await self._held.opened()
            await self._hearer.beat(self._probe)

    async def run(self) -> None:
        """Send heartbeats, and listen again whenever the connection is lost, forever."""
        await repeat(self._beat_or_reconnect, what_failed="could not keep the node alive")

    def reconnect(self) -> None:
        """Give up the connection and make a new one."""
        self._lost.set()
        self.beat_due.set()

    async def close(self) -> None:
        """Drop the connection."""
        self._connection = None
        await self._held.close()

    async def _beat_or_reconnect(self) -> None:
        if not self._lost.is_set():
            await self._wait_until_due()
        if not self._lost.is_set():
            await self._beat()
        if self._lost.is_set():
            await self._listen_again()

    async def _wait_until_due(self) -> None:
        try:
            async with asyncio.timeout(self._heartbeat_seconds):
                await self.beat_due.wait()
        except TimeoutError:
            return  # it is time
        finally:
            self.beat_due.clear()

    async def _beat(self) -> None:
        try:
            await self._hearer.beat(self._probe)
        except Exception as error:
            if not is_connection_failure(error):
                raise
            logger.debug("the listening connection is given up: %r", error)
            self._lost.set()

    async def _listen_again(self) -> None:
        self._note_interruption()
        self._connection = None
        self._held.leave()
        try:
            await self.open()
        except BaseException:
            self._lost.set()
            raise
        self._is_interrupted = False
        self.reconnected += 1
        logger.warning("listening again after a lost connection")
        self._hearer.back()

    def _note_interruption(self) -> None:
        if not self._is_interrupted:
            self._is_interrupted = True
            logger.warning("the listening connection was lost")
            self._hearer.lost()

    async def _listen(self, connection: DriverConnection) -> None:
        if self._check is not None:
            await self._check(connection)
        self._hearer.begin()  # for every listening connection, however it was opened
        self._connection = connection
        self._is_new = True
        self._lost.clear()
        # Our own reference to the connection, not the driver's argument: tracing tools pass a different object.
        connection.add_termination_listener(lambda _: self._on_terminated(connection))
        channel = str(self._node)
        # The driver would send LISTEN for a channel that it does not know yet, and expose the name, a secret.
        getattr(connection, "_listeners").setdefault(channel, set())  # noqa: B009
        await connection.add_listener(channel, lambda *heard: self._on_notified(connection, heard[-1]))
        # LISTEN before reading: what is committed in between is seen twice and delivered once, never missed.
        await connection.fetch(self._connections.text(listen), self._node)

    async def _probe(self, text: str, *arguments: object, behind_token: tuple[object, ...] = ()) -> "asyncpg.Record":
        """Run a statement and wait for its token.

        Anything heard meanwhile proves that the connection is not deaf: behind heavy traffic, the token is slow.

        :raises TimeoutError: nothing arrived for the time of a heartbeat.
        :raises NothingHeard: the same, though the statement was answered.
        """
        self._token = secrets.token_hex(8)
        self._heard_token.clear()
        self._is_answered = False
        asking = asyncio.create_task(self._ask(text, *arguments, self._token, *behind_token), name="pgchannels probe")
        try:
            heard_until_then = -1
            while not asking.done() and self._heard_count > heard_until_then:
                heard_until_then = self._heard_count
                await asyncio.wait([asking], timeout=self._probe_seconds)
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])
        if asking.cancelled():
            if self._is_answered:
                raise NothingHeard
            raise TimeoutError("no probe came back through the listening connection")
        return asking.result()

    async def _ask(self, text: str, *arguments: object) -> "asyncpg.Record":
        if not self._held.is_open:
            raise ConnectionError("the listening connection was lost")  # not reopened here: it must be reported first
        [row] = await self._held.fetch(text, *arguments)
        self._is_answered = True
        if row["is_told"]:
            self._is_new = False
            await self._heard_token.wait()
        elif self._is_new:
            self._note_full_queue()
        else:
            raise ConnectionError(NOTIFICATION_QUEUE_FULL)  # what was rolled back wakes no session: LISTEN skips it
        return row

    def _note_full_queue(self) -> None:
        if self._bursts.begins("full"):
            logger.warning("%s; nothing can be sent meanwhile", NOTIFICATION_QUEUE_FULL)

    def _on_terminated(self, connection: object) -> None:
        if connection is self._connection:
            self.reconnect()

    def _on_notified(self, connection: object, text: Any) -> None:
        # A connection that was given up may still deliver old notifications: the new one reads them from the log.
        if connection is not self._connection:
            return
        self._heard_count += 1
        if text.startswith("p "):
            if text[2:] == self._token:
                self._heard_token.set()
        else:
            self._hearer.hear(text)
