"""System threads, even where gevent has replaced threads with greenlets."""

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, Protocol, TypeVar

_LOOK_EVERY_SECONDS: Final = 0.01

P = ParamSpec("P")
T = TypeVar("T")


class SystemThread(Protocol):
    """A thread that was started."""

    def join(self, timeout: float) -> None:
        """Wait until it has ended, for `timeout` seconds at most."""


def start_thread(run: Callable[[], object], *, name: str) -> SystemThread:
    """Run a function in a thread that does not keep the process alive."""
    if are_greenlets():
        return _ThreadBesideGreenlets(run)
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def are_greenlets() -> bool:
    """Whether gevent has replaced threads with greenlets."""
    gevent: Any = sys.modules.get("gevent.monkey")
    return gevent is not None and bool(gevent.is_module_patched("threading"))


class SystemThreads(ThreadPoolExecutor):
    """Replaces an event loop's thread pool, which would be greenlets that the process waits for at exit."""

    def submit(self, function: Callable[P, T], /, *arguments: P.args, **named: P.kwargs) -> "Future[T]":
        """Run a function in a thread of its own."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function(*arguments, **named))
            except BaseException as error:
                future.set_exception(error)

        _ThreadBesideGreenlets(run)
        return future


class _ThreadBesideGreenlets:
    """A system thread: a loop that runs in a greenlet would count as running in all, and none could wait any more."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self._has_ended = False
        sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")(self._run_and_end, ())

    def join(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._has_ended and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_SECONDS)  # lets the other greenlets run

    def _run_and_end(self) -> None:
        try:
            self._run()
        finally:
            self._has_ended = True
