"""Threads of the system, also where gevent has put greenlets in their place."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

_LOOK_EVERY_SECONDS: Final = 0.01


class SystemThread(Protocol):
    """A thread that was started."""

    def join(self, timeout: float) -> None:
        """Wait for so long until it has ended."""


def start_thread(run: Callable[[], object], *, name: str) -> SystemThread:
    """Run a function in a thread that does not keep the process alive."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return _ThreadBesideGreenlets(run, gevent.get_original("_thread", "start_new_thread"))
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class _ThreadBesideGreenlets:
    """An event loop in a greenlet would be the running one of all greenlets: none of them could wait any more."""

    def __init__(self, run: Callable[[], object], start_new_thread: Callable[..., object]) -> None:
        self._run = run
        self._has_ended = False
        start_new_thread(self._run_and_end, ())

    def join(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._has_ended and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_SECONDS)  # lets the other greenlets run

    def _run_and_end(self) -> None:
        try:
            self._run()
        finally:
            self._has_ended = True
