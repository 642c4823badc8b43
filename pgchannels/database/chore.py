"""Work that is done on request."""

import asyncio
from collections.abc import Awaitable, Callable

from pgchannels.database.retry import repeat


class Chore:
    """Does something once for all requests that have gathered, and again after a pause if the database failed.

    :param every_seconds: returns after how long to do it even without a request; None: not now.
    """

    def __init__(
        self,
        do: Callable[[], Awaitable[None]],
        *,
        what_failed: str,
        every_seconds: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._do = do
        self._what_failed = what_failed
        self._every_seconds = every_seconds
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Request that it be done."""
        self._asked.set()

    async def run(self) -> None:
        """Do it whenever it is requested, forever."""
        await repeat(self._do_when_asked, what_failed=self._what_failed)

    async def _do_when_asked(self) -> None:
        try:
            async with asyncio.timeout(self._every_seconds()):
                await self._asked.wait()
        except TimeoutError:
            pass  # it is time
        self._asked.clear()
        try:
            await self._do()
        except BaseException:
            self._asked.set()
            raise
