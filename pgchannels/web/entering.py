"""Enters a subscription for a client that may leave, in a server that may stop; with a database that may be away."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from pgchannels.errors import LayerClosed
from pgchannels.subscription import Subscription
from pgchannels.web.stopping import when_server_stops


async def enter(subscription: Subscription, *, client_leaves: Coroutine[Any, Any, object] | None = None) -> bool:
    """Enter a subscription; return False, and do not enter it, if the client leaves meanwhile.

    :param client_leaves: ends when it does.
    :raises LayerClosed: the server stops.
    """
    entering = asyncio.create_task(subscription.__aenter__(), name="enter a subscription")
    leaving = None if client_leaves is None else asyncio.create_task(client_leaves, name="watch a client")
    tasks = [task for task in (entering, leaving) if task is not None]
    is_entered = False
    try:
        async with asyncio.timeout(None) as waiting:
            with when_server_stops(lambda: waiting.reschedule(0)):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if leaving is None or not leaving.done():
            entering.result()  # or what it raised
            is_entered = True
        return is_entered
    except TimeoutError:
        raise LayerClosed("the server stops: nothing can be received any more") from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if not is_entered and not entering.cancelled() and entering.exception() is None:
            await subscription.__aexit__(None, None, None)
