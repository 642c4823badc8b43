"""Work that is done whenever somebody asks for it."""

import asyncio
from collections.abc import Awaitable, Callable

from pgchannels.database.retry import repeat


class Chore:
    """Does something once for all who asked meanwhile, and again after a pause when the database failed.

    :param every_seconds: also when nobody has asked for so long; None at the moment: not then.
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
        """Have it done."""
        self._asked.set()

    async def run(self) -> None:
        """Do it when it is asked for, for ever."""
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
