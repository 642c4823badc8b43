"""What the background sender does in one life of its thread."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.database.statements.retention import keep_messages_for
from pgchannels.errors import LayerClosed
from pgchannels.options import Options
from pgchannels.receiving.losses import QUEUE_IN_TOPIC, Losses
from pgchannels.sending.sender import Sender

LAST_CALLS_SECONDS: Final = 30
_REMIND_SECONDS: Final = 3600  # much less than a term, after which the log forgets what nobody needs

T = TypeVar("T")
Request = Callable[[Sender], Awaitable[T]]


@dataclass(eq=False, slots=True)
class Call:
    """A request, and the future that waits for its answer."""

    request: Request[Any]
    future: "Future[Any] | asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop | None = None  # of the future; None: a thread waits for it
    is_patient: bool = False  # it may take long, and can be run again

    def answer(self, result: Any, error: BaseException | None) -> None:
        """Give the caller the answer or the error; do nothing if nobody waits any more."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)

    def refuse(self, error: BaseException) -> None:
        """Raise an error in place of the answer; may be called from any thread."""
        if self.loop is None:
            self.answer(None, error)
            return
        with suppress(RuntimeError):  # it is closed: nobody waits
            self.loop.call_soon_threadsafe(self.answer, None, error)


_Answer = tuple[Call, Any, BaseException | None]


class Service:
    """Runs requests in the event loop of the thread, and hands back the answers."""

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None) -> None:
        # Hardly anything but messages is sent.
        self._connections = Connections(database, options.schema, keep=False)
        self._sender = Sender(
            self._connections, options, on_dropped=Losses().at(QUEUE_IN_TOPIC), idle_seconds=idle_seconds
        )
        self._connections.when_opened(self._sender.prepare)
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._under_way: dict[asyncio.Future[Any], Call] = {}
        self._to_run_again: list[Call] | None = None  # once this closes
        self._answers: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}
        self._has_sent = False
        self._reminding: asyncio.Task[None]

    def open(self) -> None:
        """Begin to send, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._sender.start().add_done_callback(lambda _: self._end.set())
        self._reminding = self._loop.create_task(self._remind(), name="pgchannels retention")

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run a callback in the loop; may be called from any thread."""
        self._loop.call_soon_threadsafe(callback)

    def end(self) -> None:
        """Let `ended` return; may be called from any thread."""
        with suppress(RuntimeError):  # the loop was closed just now
            self.call_soon(self._end.set)

    async def ended(self) -> None:
        """Wait until the service is asked to end, or can no longer send."""
        await self._end.wait()

    async def close(self) -> list[Call]:
        """Wait until all requests are answered, for 30 seconds at most, and disconnect.

        Return the patient ones, for the next service to run again.
        """
        self._to_run_again = []
        self._reminding.cancel()
        for sending, call in self._under_way.items():
            if call.is_patient:
                sending.cancel()
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=LAST_CALLS_SECONDS)
            for sending in late:
                sending.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.wait([self._reminding])
        await self._sender.close()
        await self._connections.close()
        return self._to_run_again

    def begin(self, call: Call) -> None:
        """Run a request; its caller gets the answer, or what it raises."""
        self._has_sent = True
        try:
            sending = asyncio.ensure_future(call.request(self._sender))
        except BaseException as error:  # including what would end the loop for all others
            self._answer(call, None, error)
        else:
            self._under_way[sending] = call
            sending.add_done_callback(partial(self._settle, call))

    async def _remind(self) -> None:
        # A node does so with each heartbeat. A new connection does, too, but one that is busy lives for long.
        while True:
            await asyncio.sleep(_REMIND_SECONDS)
            if self._has_sent:
                self._has_sent = False
                with suppress(Exception):  # the next connection does it
                    await self._connections.fetch(keep_messages_for, self._sender.retention_seconds)

    def _settle(self, call: Call, sent: "asyncio.Future[Any]") -> None:
        del self._under_way[sent]
        if sent.cancelled() and call.is_patient and self._to_run_again is not None:
            self._to_run_again.append(call)
        elif sent.cancelled():
            text = "the thread that sends for this process ended while the message was on its way"
            self._answer(call, None, LayerClosed(text, may_have_been_sent=True))
        elif (error := sent.exception()) is not None:
            self._answer(call, None, error)
        else:
            self._answer(call, sent.result(), None)

    def _answer(self, call: Call, result: Any, error: BaseException | None) -> None:
        if call.loop is None:
            call.answer(result, error)
            return
        if not self._answers:
            self._loop.call_soon(self._hand_back)
        self._answers.setdefault(call.loop, []).append((call, result, error))

    def _hand_back(self) -> None:
        # Waking another loop costs more than a message: wake it once for all of its calls that are answered now.
        answers, self._answers = self._answers, {}
        for loop, its_answers in answers.items():
            with suppress(RuntimeError):  # it is closed: nobody waits
                loop.call_soon_threadsafe(_answer_all, its_answers)


def _answer_all(answers: "list[_Answer]") -> None:
    for call, result, error in answers:
        call.answer(result, error)
