"""Starlette and FastAPI: a layer that is open for as long as the application runs."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette

from pgchannels.layer import MessageLayer


def lifespan(layer: MessageLayer) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """`FastAPI(lifespan=lifespan(layer))` opens the layer before the first request and closes it after the last."""

    @asynccontextmanager
    async def opened(_: Starlette) -> AsyncIterator[None]:
        async with layer:
            yield

    return opened
