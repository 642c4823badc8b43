"""The one thread of a process that sends for every thread and event loop without a node of its own."""

import asyncio
import atexit
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.errors import DatabaseUnavailable, LayerClosed
from pgchannels.options import Options
from pgchannels.process.threads import SystemThread, SystemThreads, are_greenlets, start_thread
from pgchannels.receiving.losses import QUEUE_IN_TOPIC, Losses
from pgchannels.sending.sender import Sender

_LAST_CALLS_SECONDS: Final = 30
_STOP_TIMEOUT_SECONDS: Final = 2 * _LAST_CALLS_SECONDS

T = TypeVar("T")
Request = Callable[[Sender], Awaitable[T]]

_running: "set[BackgroundSender]" = set()


@atexit.register  # while this is imported: what the application registers later still sends
def _stop_all() -> None:
    for sender in list(_running):
        sender.stop()


@dataclass(eq=False, slots=True)
class _Call:
    request: Request[Any]
    future: "Future[Any] | asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop | None = None  # that the future belongs to; None: a thread waits for it

    def answer(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return  # nobody waits any more
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


_Answer = tuple[_Call, Any, BaseException | None]


class BackgroundSender:
    """Runs the requests of all callers in the order of their calls.

    A call starts the thread, and the next one does so again after `stop`. It has one connection, from the first message
    on. A request waits for the database for `send_timeout`, as everywhere. Should the thread itself not answer, its
    caller waits for twice that; then a request that has not begun never does, and one that has may have been sent.

    :param idle_seconds: after so long without a message the connection is given back until the next.
    """

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None = None) -> None:
        self._new_service = partial(_Service, database, options, idle_seconds=idle_seconds)
        self._patience_seconds = 2 * options.send_timeout
        self._process = os.getpid()
        self._calls: deque[_Call] = deque()  # that the thread has not taken yet
        self._is_woken = False
        self._lock = threading.Lock()  # guards the next two
        self._thread: SystemThread | None = None
        self._service: _Service | None = None  # while it takes calls
        self._is_to_end = False

    async def send(self, request: Request[T], *, is_patient: bool = False) -> T:
        """Run a request for a task of another event loop. Cancelling this does not take the request back.

        :param is_patient: wait for it as long as the thread lives.
        :raises DatabaseUnavailable: the thread did not answer.
        :raises LayerClosed: the thread ended while the message was on its way.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        call = _Call(request, future, loop)
        self._enter(call)
        if is_patient:
            return await future
        giving_up = loop.call_later(self._patience_seconds, self._give_up, call)
        try:
            return await future
        finally:
            giving_up.cancel()

    def send_blocking(self, request: Request[T], *, is_patient: bool = False) -> T:
        """Run a request for a thread, which waits for it; raises as `send`."""
        future: Future[T] = Future()
        call = _Call(request, future)
        self._enter(call)
        try:
            return future.result(None if is_patient else self._patience_seconds)
        except TimeoutError:
            if future.done():  # just now, or the error is the answer
                return future.result()
            raise self._taken_back(call) from None

    def submit(self, request: Request[object]) -> None:
        """Run a request whose answer nobody waits for."""
        self._enter(_Call(request, Future()))

    @property
    def is_running(self) -> bool:
        """Whether it has a thread; in a child of a fork that is the parent's."""
        return self._thread is not None and self._process == os.getpid()

    def end(self) -> None:
        """Let the thread answer what it has taken, and end. Waits for nothing, not even for the lock."""
        self._is_to_end = True  # before the service is looked for: a thread that begins looks in the other order
        if self.is_running and (service := self._service) is not None:
            service.end()

    def stop(self) -> None:
        """Send what waits and end the thread."""
        if self.is_running and (thread := self._thread) is not None:
            self.end()
            thread.join(_STOP_TIMEOUT_SECONDS)

    def _enter(self, call: _Call) -> None:
        self._calls.append(call)
        if not self._is_woken:
            self._is_woken = True
            try:
                self._wake()
            except BaseException:  # no thread can be started any more
                self._is_woken = False
                self._calls.remove(call)
                raise

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None:
                self._start()
            service = self._service
        if service is not None:  # not behind the lock: other threads run meanwhile
            with suppress(RuntimeError):  # it has ended just now: the next one takes the calls
                service.call_soon(self._hand_over)

    def _give_up(self, call: _Call) -> None:
        if not call.future.done():
            call.answer(None, self._taken_back(call))

    def _taken_back(self, call: _Call) -> DatabaseUnavailable:
        try:
            self._calls.remove(call)
            has_begun = False
        except ValueError:
            has_begun = True
        fate = "it may have been sent" if has_begun else "it was not sent"
        text = (
            f"the thread that sends for this process did not answer within {self._patience_seconds:g} seconds: {fate}"
        )
        return DatabaseUnavailable(text, may_have_been_sent=has_begun)

    def _start(self) -> None:
        self._is_to_end = False
        run = partial(self._run, self._new_service())
        try:
            self._thread = start_thread(run, name="pgchannels sender")
        except RuntimeError as error:
            raise LayerClosed(
                f"the thread that sends for this process cannot be started ({error}): send before the process ends, or"
                " allow it more threads"
            ) from error
        _running.add(self)

    def _run(self, service: "_Service") -> None:
        # Not `asyncio.run`: it ends the loop's pool of threads by another thread, and an ending process may start none.
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._serve(service))
        finally:
            loop.close()
            _running.discard(self)
            with self._lock:
                self._thread = self._service = None
                self._is_woken = False  # before looking for calls: one that is added now wakes again, or is seen
                if self._calls:  # they came while this one ended
                    self._start()

    async def _serve(self, service: "_Service") -> None:
        if are_greenlets():
            asyncio.get_running_loop().set_default_executor(SystemThreads())
        service.open()
        with self._lock:
            self._service = service
        self._hand_over()
        if self._is_to_end:
            service.end()
        await service.ended()
        with self._lock:
            self._service = None
        await service.close()

    def _hand_over(self) -> None:
        self._is_woken = False  # before the calls are taken, as above
        if (service := self._service) is None:
            return  # they wait for the next thread
        with suppress(IndexError):  # empty: callers take back theirs at any time
            while True:
                service.begin(self._calls.popleft())


class _Service:
    """Of one life of the thread: runs requests in its event loop, and hands back the answers."""

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None) -> None:
        # Hardly anything else than messages is sent.
        self._connections = Connections(database, options.schema, keep=False)
        self._sender = Sender(
            self._connections, options, on_dropped=Losses().at(QUEUE_IN_TOPIC), idle_seconds=idle_seconds
        )
        self._connections.when_opened(self._sender.prepare)
        self._end = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._under_way: set[asyncio.Future[Any]] = set()
        self._answers: dict[asyncio.AbstractEventLoop, list[_Answer]] = {}

    def open(self) -> None:
        """Begin to send, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._sender.start().add_done_callback(lambda _: self._end.set())

    def call_soon(self, callback: Callable[[], object]) -> None:
        """From any thread: run a callback in the loop."""
        self._loop.call_soon_threadsafe(callback)

    def end(self) -> None:
        """From any thread: let `ended` return."""
        with suppress(RuntimeError):  # the loop was closed just now
            self.call_soon(self._end.set)

    async def ended(self) -> None:
        """Return when this is to end, or can no longer send."""
        await self._end.wait()

    async def close(self) -> None:
        """Wait until all requests are answered, for some time, and disconnect."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=_LAST_CALLS_SECONDS)
            for sending in late:
                sending.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._sender.close()
        await self._connections.close()

    def begin(self, call: _Call) -> None:
        """Run a request; its caller gets the answer, or what it raises."""
        try:
            sending = asyncio.ensure_future(call.request(self._sender))
        except BaseException as error:  # also what would end the loop for all others
            self._answer(call, None, error)
        else:
            self._under_way.add(sending)
            sending.add_done_callback(partial(self._settle, call))

    def _settle(self, call: _Call, sent: "asyncio.Future[Any]") -> None:
        self._under_way.discard(sent)
        if sent.cancelled():
            text = "the thread that sends for this process ended while the message was on its way"
            self._answer(call, None, LayerClosed(text, may_have_been_sent=True))
        elif (error := sent.exception()) is not None:
            self._answer(call, None, error)
        else:
            self._answer(call, sent.result(), None)

    def _answer(self, call: _Call, result: Any, error: BaseException | None) -> None:
        if call.loop is None:
            call.answer(result, error)
            return
        if not self._answers:
            self._loop.call_soon(self._hand_back)
        self._answers.setdefault(call.loop, []).append((call, result, error))

    def _hand_back(self) -> None:
        # Waking another loop costs more than a message does: once for all of its calls that are answered now.
        answers, self._answers = self._answers, {}
        for loop, its_answers in answers.items():
            with suppress(RuntimeError):  # it is closed: nobody waits
                loop.call_soon_threadsafe(_answer_all, its_answers)


def _answer_all(answers: "list[_Answer]") -> None:
    for call, result, error in answers:
        call.answer(result, error)
