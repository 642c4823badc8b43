"""The one thread of a process that sends for every thread and event loop without a node of its own."""

import asyncio
import os
import threading
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from pgchannels.database.database import Database
from pgchannels.errors import DatabaseUnavailable, LayerClosed
from pgchannels.options import Options
from pgchannels.process.service import LAST_CALLS_SECONDS, Call, Request, Service
from pgchannels.process.threads import SystemThread, SystemThreads, are_greenlets, start_thread

_STOP_TIMEOUT_SECONDS: Final = 2 * LAST_CALLS_SECONDS
_LOOK_AGAIN_SECONDS: Final = 1.0

T = TypeVar("T")


class BackgroundSender:
    """Runs the requests of all callers in the order of their calls.

    The first call starts the thread, and so does the first after `stop`. It has one connection, from the first message
    on. A request waits for the database for `send_timeout`, as everywhere. If the thread itself does not answer, the
    caller waits for twice that; then a request that has not begun is withdrawn, and one that has may have been sent.

    :param idle_seconds: after this long without a message, the connection is closed until the next one.
    """

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None = None) -> None:
        self._new_service = partial(Service, database, options, idle_seconds=idle_seconds)
        self._patience_seconds = 2 * options.send_timeout
        self._process = os.getpid()
        self._calls: deque[Call] = deque()  # not yet taken by the thread
        self._is_woken = False
        self._lock = threading.Lock()  # guards the next two
        self._thread: SystemThread | None = None
        self._service: Service | None = None  # while it takes calls
        self._is_to_end = False

    async def send(self, request: Request[T], *, is_patient: bool = False) -> T:
        """Run a request for a task of another event loop. Cancelling this does not withdraw the request.

        :param is_patient: wait for as long as the thread lives.
        :raises DatabaseUnavailable: the thread did not answer.
        :raises LayerClosed: the thread ended while the message was on its way.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        call = Call(request, future, loop, is_patient)
        self._enter(call)
        timers = [loop.call_later(_LOOK_AGAIN_SECONDS, self._look_again)]
        if not is_patient:
            timers.append(loop.call_later(self._patience_seconds, self._give_up, call))
        try:
            return await future
        finally:
            for timer in timers:
                timer.cancel()

    def send_blocking(self, request: Request[T], *, is_patient: bool = False) -> T:
        """Run a request for a thread, which waits for it; raises as `send`."""
        future: Future[T] = Future()
        call = Call(request, future, is_patient=is_patient)
        self._enter(call)
        soon = min(_LOOK_AGAIN_SECONDS, self._patience_seconds)
        for seconds in (soon, None if is_patient else self._patience_seconds - soon):
            try:
                return future.result(seconds)
            except TimeoutError:
                if future.done():  # just now, or the error is the answer
                    return future.result()
                self._look_again()
        raise self._taken_back(call)

    def submit(self, request: Request[object]) -> None:
        """Run a request whose answer nobody waits for."""
        self._enter(Call(request, Future()))

    @property
    def is_running(self) -> bool:
        """Whether it has a thread in this process; after a fork, the thread is the parent's."""
        return self._thread is not None and self._process == os.getpid()

    def end(self) -> None:
        """Let the thread answer what it has taken, and end. Waits for nothing, not even for the lock."""
        self._is_to_end = True  # before reading the service: a starting thread does both in the other order
        if self.is_running and (service := self._service) is not None:
            service.end()

    def stop(self) -> None:
        """Send what waits and end the thread."""
        if self.is_running and (thread := self._thread) is not None:
            self.end()
            thread.join(_STOP_TIMEOUT_SECONDS)

    def _enter(self, call: Call) -> None:
        self._calls.append(call)
        if not self._is_woken:
            self._is_woken = True
            try:
                self._wake()
            except BaseException:  # no thread can be started any more, or a signal handler has raised it
                self._is_woken = False
                with suppress(ValueError):  # it was taken already
                    self._calls.remove(call)
                raise

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None:
                self._start()
            service = self._service
        if service is not None:  # outside the lock: other threads run meanwhile
            with suppress(RuntimeError):  # it has just ended: the next one takes the calls
                service.call_soon(self._hand_over)

    def _look_again(self) -> None:
        # What a signal handler raises at a bad moment keeps a call from waking the thread, and all later calls.
        if self._calls and not self._lock.locked():
            self._wake()

    def _give_up(self, call: Call) -> None:
        if not call.future.done():
            call.answer(None, self._taken_back(call))

    def _taken_back(self, call: Call) -> DatabaseUnavailable:
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

    def _start_again(self) -> None:
        try:
            self._start()
        except LayerClosed as error:  # the process ends
            with suppress(IndexError):
                while True:
                    self._calls.popleft().refuse(error)

    def _run(self, service: "Service") -> None:
        # Not `asyncio.run`: it ends the loop's thread pool from another thread, and an exiting process can start none.
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._serve(service))
        finally:
            loop.close()
            with self._lock:
                self._thread = self._service = None
                self._is_woken = False  # before checking for calls: one that is added now wakes again, or is seen
                if self._calls:  # they arrived while this one ended
                    self._start_again()

    async def _serve(self, service: "Service") -> None:
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
        self._calls.extendleft(await service.close())

    def _hand_over(self) -> None:
        self._is_woken = False  # before the calls are taken, as above
        if (service := self._service) is None:
            return  # they wait for the next thread
        with suppress(IndexError):  # empty: callers may withdraw theirs at any time
            while True:
                service.begin(self._calls.popleft())
