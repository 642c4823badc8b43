"""What functions of the application give: a URL, a password."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from pgchannels.errors import ConfigurationError, PgChannelsError

FUNCTION_TIMEOUT_SECONDS: Final = 10

T = TypeVar("T")


def type_of(value: object) -> str:
    """Return the type of a value, which must not be shown: it may be a password."""
    return f"a value of the type {type(value).__name__}"


async def answer_of(function: Callable[[], T | Awaitable[T]], what: str) -> T:
    """Call a function of the user, plain or coroutine, and return what it gives within FUNCTION_TIMEOUT_SECONDS."""
    limit = asyncio.timeout(FUNCTION_TIMEOUT_SECONDS)
    try:
        async with limit:
            answer = function() if inspect.iscoroutinefunction(function) else await _in_thread(function)
            if isinstance(answer, Exception):
                raise answer
            return await answer if inspect.isawaitable(answer) else answer
    except ConfigurationError:
        raise
    except Exception as error:
        trouble = _late_answer() if limit.expired() else f"failed: {_failure_in_words(error)}"
        raise ConnectionError(f"the function that gives {what} {trouble}") from error


def _late_answer() -> str:
    return f"gave no answer within {FUNCTION_TIMEOUT_SECONDS} seconds"


def _failure_in_words(error: Exception) -> str:
    return str(error) if isinstance(error, PgChannelsError) else f"it raised {type(error).__name__}"


async def _in_thread(function: Callable[[], T]) -> T | Exception:
    """Return what the function gives, or the error that it raises: a future cannot carry all of them."""
    try:
        answer = asyncio.get_running_loop().run_in_executor(None, _outcome, function)
    except RuntimeError:  # the interpreter is exiting: no more threads can start
        return _outcome(function)
    return await answer


def _outcome(function: Callable[[], T]) -> T | Exception:
    try:
        return function()
    except Exception as error:
        return error
