"""Sending without an event loop, and what arrives of it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from pgchannels import Subscription
from tests.support.waiting import within

T = TypeVar("T")


def in_plain_thread(function: Callable[[], T]) -> "asyncio.Future[T]":
    """The result of a function that runs in a thread without an event loop and without a context."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run).start()
    return asyncio.wrap_future(future)


async def texts_of(subscription: Subscription, count: int) -> list[Any]:
    """What the next messages say."""
    return [(await within(anext(subscription))).payload["text"] for _ in range(count)]
