"""Retries while the database cannot be reached, forever if need be."""

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeVar

from pgchannels.database.failures import is_database_failure, is_passing, lacks_database
from pgchannels.database.wording import Place, in_words, raise_explained
from pgchannels.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, SchemaMissing

_FIRST_SECONDS: Final = 0.05
_LONGEST_SECONDS: Final = 5.0
_LOOK_EVERY_SECONDS: Final = 0.5
_WORD_EVERY_SECONDS: Final = 5.0
_CALM_SECONDS: Final = 10.0  # without a failure: the next one starts a new burst

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("pgchannels")


class Backoff:
    """Growing pauses after failures, with jitter so that many nodes do not reconnect at the same moment."""

    def __init__(self) -> None:
        self._next_seconds = _FIRST_SECONDS
        self._last_pause = float("-inf")

    def begin_anew(self) -> None:
        """Wait for a short time at the next failure, which may belong to the same burst."""
        self._next_seconds = _FIRST_SECONDS

    async def pause_after(self, error: Exception, what: str, *, at_most_seconds: float = _LONGEST_SECONDS) -> None:
        """Wait, twice as long as the last time; log the first failure of a burst."""
        now = asyncio.get_running_loop().time()
        if now - self._last_pause > _CALM_SECONDS:
            logger.warning("%s, will try again: %s", what, in_words(error))
            self.begin_anew()
        seconds = self._next_seconds * random.uniform(0.5, 1.0)  # noqa: S311
        self._next_seconds = min(2 * self._next_seconds, _LONGEST_SECONDS)
        await asyncio.sleep(min(seconds, max(at_most_seconds, 0)))
        self._last_pause = asyncio.get_running_loop().time()


async def repeat(step: Callable[[], Awaitable[None]], *, what_failed: str) -> NoReturn:
    """Run a step forever; retry after a pause if the database fails, or what says how to reach it.

    A file of certificates or services, a function of the application: each can be away for a moment.
    """
    backoff = Backoff()
    while True:
        try:
            await step()
        except Exception as error:
            if not is_database_failure(error) and not isinstance(error, ConfigurationError):
                raise
            await backoff.pause_after(error, what_failed)


async def insist(step: Callable[[], Awaitable[T]], *, place: Place, seconds: float, what_failed: str) -> T:
    """Run a step until it succeeds; it must be safe to run twice.

    :raises DatabaseUnavailable: the database could not be reached, or others held its locks, for this many seconds.
    :raises DatabaseRefused: the database answers with an error that a retry would not fix.
    """
    backoff, loop = Backoff(), asyncio.get_running_loop()
    deadline = loop.time() + seconds
    failure: Exception | None = None
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await step()
        except Exception as error:
            if failure is None or not isinstance(error, TimeoutError):  # our own impatience explains nothing
                failure = error
            remaining = deadline - loop.time()
            if remaining <= 0 or not is_passing(error):
                raise_explained(failure, place)
            await backoff.pause_after(error, what_failed, at_most_seconds=remaining)


async def until_there(step: Callable[[], Awaitable[T]], *, seconds: float = math.inf) -> T:
    """Retry a step until the database and its tables are there; every few seconds, log what is missing.

    :raises DatabaseUnavailable: the database could not be reached in this time.
    :raises DatabaseRefused: it was still not there after this time, or gave another answer that a retry would not fix.
    :raises SchemaMissing: it still had no tables after this time.
    """
    loop = asyncio.get_running_loop()
    deadline, next_word = loop.time() + seconds, loop.time()
    while True:
        try:
            return await step()
        except (DatabaseUnavailable, DatabaseRefused, SchemaMissing) as error:
            if isinstance(error, DatabaseRefused) and (math.isinf(seconds) or not lacks_database(error)):
                raise  # it may well stay so
            now = loop.time()
            if now >= deadline:
                raise
            if now >= next_word:
                logger.warning("waiting for the database: %s", error)
                next_word = now + _WORD_EVERY_SECONDS
        await asyncio.sleep(min(_LOOK_EVERY_SECONDS, max(deadline - now, 0)))
