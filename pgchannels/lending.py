"""One event loop sends for others, and for threads without one: many calls with one wake-up, and many answers."""

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from pgchannels.errors import DatabaseUnavailable, LayerClosed, copy_of
from pgchannels.sender import Sender

Request = Callable[[Sender], Awaitable[Any]]
Answer = Callable[[Any, BaseException | None], object]  # takes a result, or an error


class LenderClosed(Exception):
    """The lender did not take the call: nothing was sent, another one may be asked."""


class Lender:
    """Of the loop that sends. Calls wait until it opens; once it is closed they go back to their callers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Request, Answer]] = deque()
        self._is_woken = False
        self._sender: Sender | None = None
        self._refusal: Exception | None = None
        self._under_way: set[asyncio.Future[Any]] = set()

    def call(self, request: Request, answer: Answer) -> None:
        """From any thread: run a request in the loop of the lender, in the order of the calls, and call `answer` there.

        It gets `LenderClosed` when nothing was done, and `LayerClosed` when the loop ended meanwhile.
        """
        self._calls.append((request, answer))
        if self._refusal is not None:
            self._refuse_calls(self._refusal)
        elif not self._is_woken:
            self._is_woken = True
            try:
                self._loop.call_soon_threadsafe(self._take_calls)
            except RuntimeError:  # the loop is closed
                self._is_woken = False
                self._refuse_calls(LenderClosed())

    def open(self, sender: Sender) -> None:
        """Begin to take calls."""
        self._sender = sender
        self._take_calls()

    def close(self, reason: Exception | None = None) -> None:
        """Take no more calls: their callers get the reason, or look for another lender."""
        self._refusal = self._refusal or reason or LenderClosed()
        self._refuse_calls(self._refusal)

    async def settled(self, *, timeout_seconds: float) -> None:
        """Return when all calls that were taken are answered, or some seconds have passed."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_seconds)

    def _take_calls(self) -> None:
        self._is_woken = False  # before the calls are taken: who adds one now is seen, or wakes again
        if self._sender is not None and self._refusal is None:
            while self._calls:
                self._begin(self._sender, *self._calls.popleft())

    def _begin(self, sender: Sender, request: Request, answer: Answer) -> None:
        try:
            sending = asyncio.ensure_future(request(sender))
        except Exception as error:
            answer(None, _of_a_lender(error))
        else:
            self._under_way.add(sending)
            sending.add_done_callback(partial(self._settle, answer))

    def _settle(self, answer: Answer, sent: "asyncio.Future[Any]") -> None:
        self._under_way.discard(sent)
        if sent.cancelled():
            text = "the event loop that sends for this one ended while the message was on its way"
            answer(None, LayerClosed(text, may_have_been_sent=True))
        elif (error := sent.exception()) is not None:
            answer(None, _of_a_lender(error))
        else:
            answer(sent.result(), None)

    def _refuse_calls(self, error: Exception) -> None:
        with suppress(IndexError):  # empty: also when several threads do this
            while True:
                _, answer = self._calls.popleft()
                answer(None, copy_of(error))


def _of_a_lender(error: BaseException) -> BaseException:
    return LenderClosed() if isinstance(error, LayerClosed) and not error.may_have_been_sent else error


class Borrower:
    """Of a loop that others send for: hands it their answers.

    :param patience_seconds: how long a call waits for its answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, patience_seconds: float) -> None:
        self._loop = weakref.ref(loop)  # whoever keeps this keeps no loop that has ended
        self._patience_seconds = patience_seconds
        self._waiting: dict[asyncio.Future[Any], float] = {}  # until when each waits, the first of them first
        self._is_watching = False
        self._answers: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_woken = False

    async def call(self, lender: Lender, request: Request) -> Any:
        """Have a lender run a request. Cancelling this does not take the request back.

        :raises LenderClosed: nothing was done.
        :raises DatabaseUnavailable: the lender did not answer in time.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[future] = loop.time() + self._patience_seconds
        if not self._is_watching:
            self._watch(loop)
        lender.call(request, partial(self._answer, future))
        try:
            return await future
        finally:
            del self._waiting[future]

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        # One timer for all that wait: one for each would cost as much as the rest of the way.
        self._is_watching = bool(self._waiting)
        if self._waiting:
            loop.call_at(next(iter(self._waiting.values())), self._give_up_overdue)

    def _give_up_overdue(self) -> None:
        loop = asyncio.get_running_loop()
        for future, deadline in self._waiting.items():
            if deadline > loop.time():
                break
            if not future.done():
                future.set_exception(_no_answer())
        loop.call_soon(self._watch, loop)  # when those have left

    def _answer(self, future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        loop = self._loop()
        if loop is None or loop.is_closed() or future.done():  # nobody waits
            return
        self._answers.append((future, result, error))
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop was closed just now
                loop.call_soon_threadsafe(self._take_answers)

    def _take_answers(self) -> None:
        self._is_woken = False
        while self._answers:
            future, result, error = self._answers.popleft()
            if not future.done():
                _resolve(future, result, error)


def call_blocking(lender: Lender, request: Request, *, timeout_seconds: float) -> Any:
    """Have a lender run a request, and wait for it in a thread without an event loop; raises as `Borrower.call`."""
    future: Future[Any] = Future()
    lender.call(request, partial(_resolve, future))
    try:
        return future.result(timeout_seconds)
    except TimeoutError:
        if future.done():  # just now, or the error is the answer
            return future.result()
        raise _no_answer() from None


def _resolve(future: "asyncio.Future[Any] | Future[Any]", result: Any, error: BaseException | None) -> None:
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _no_answer() -> DatabaseUnavailable:
    text = "the event loop that sends for this process did not answer: the message may have been sent"
    return DatabaseUnavailable(text, may_have_been_sent=True)
