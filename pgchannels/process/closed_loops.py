"""Ends what is left in an event loop that was closed without cancelling its tasks."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_OURS: Final = str(Path(__file__).parents[1])
_MOST_AWAITS: Final = 100  # of one task's clean-up


def end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """End the tasks of pgchannels in a closed loop; left alone, they would complain when collected.

    They cannot clean up: whatever they await fails.
    """
    running_loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)  # nothing of theirs may run in the caller's loop
    try:
        for task in asyncio.all_tasks(loop):
            coroutine: Any = task.get_coro()
            if hasattr(coroutine, "cr_code") and coroutine.cr_code.co_filename.startswith(_OURS):
                setattr(task, "_log_destroy_pending", False)  # noqa: B010 -- asyncio has no other way
                _end(coroutine)
    finally:
        asyncio._set_running_loop(running_loop)


def _end(coroutine: Any) -> None:
    for _ in range(_MOST_AWAITS):
        if coroutine.cr_frame is None:
            return
        with suppress(BaseException):
            coroutine.close()  # ends it at its await, and raises if it awaits again
