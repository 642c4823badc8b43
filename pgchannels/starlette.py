"""Starlette and FastAPI: a layer that is open for as long as the application runs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette

from pgchannels.layer import MessageLayer


def lifespan(layer: MessageLayer, *, wait: float = 0) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """`FastAPI(lifespan=lifespan(layer))` opens the layer before the first request and closes it after the last.

    `wait` is for how many seconds it waits for a database that starts later than the application; see `open`.
    """

    @asynccontextmanager
    async def opened(_: Starlette) -> AsyncIterator[None]:
        await layer.open(wait=wait)
        try:
            yield
        finally:
            await layer.close()

    return opened
