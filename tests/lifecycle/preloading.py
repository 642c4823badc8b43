"""A server that loads its application before it forks: `python -m tests.lifecycle.preloading URL WORKERS`.

The parent has used layers in every way before it forks, and goes on with them while its workers use them, too.
Each worker ends as those of gunicorn do, through `sys.exit`. Prints `done` when everything was as promised.
"""

import asyncio
import os
import sys
import threading
import warnings

from pgchannels import MessageLayer

LIMIT_SECONDS = 60


def main(url: str, workers: int) -> None:
    """Use the layers, fork, use them again."""
    layers = [MessageLayer(url) for _ in range(4)]
    closed, forgotten, sending, receiving = layers
    asyncio.run(open_and_close(closed))
    asyncio.run(forget_to_close(forgotten))
    asyncio.run(sending.publish("room", "through the background sender"))
    # No `with`: a worker leaves through this frame, too.
    runner, elsewhere = asyncio.Runner(), Elsewhere(url)
    elsewhere.start()
    runner.run(receiving.open())
    runner.run(exchange(receiving, "before"))
    elsewhere.exchange("before.thread")
    children = [fork([*layers, elsewhere.layer], number) for number in range(workers)]
    runner.run(exchange(receiving, "meanwhile"))
    elsewhere.exchange("meanwhile.thread")
    for child in children:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
    runner.run(exchange(receiving, "after"))
    elsewhere.exchange("after.thread")
    asyncio.run(sending.publish("room", "after"))
    elsewhere.stop()
    runner.run(receiving.close())
    runner.close()
    print("done", flush=True)


def fork(layers: list[MessageLayer], number: int) -> int:
    """Start a worker; returns its process id."""
    with warnings.catch_warnings():
        # Python warns of every fork of a process with threads; that this one is safe is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        for layer in layers:
            asyncio.run(work(layer, f"worker-{number}"))
        sys.exit(0)
    return child


async def work(layer: MessageLayer, name: str) -> None:
    """Do what a worker does: send from a loop that did not open the layer, then open it and receive."""
    async with asyncio.timeout(LIMIT_SECONDS):
        await layer.publish("room", name)
        async with layer:
            await exchange(layer, name)


async def open_and_close(layer: MessageLayer) -> None:
    """Use a layer as one should."""
    async with layer:
        await exchange(layer, "closed")


async def forget_to_close(layer: MessageLayer) -> None:
    """Leave the closing to the end of the loop."""
    await layer.open()
    await exchange(layer, "forgotten")


async def exchange(layer: MessageLayer, name: str) -> None:
    """Receive what is published here, on a topic and on a channel."""
    async with asyncio.timeout(LIMIT_SECONDS), layer.subscribe(name) as subscription:
        for number in range(10):
            await layer.publish(name, number)
            assert (await anext(subscription)).payload == number
        channel = await layer.new_channel()
        await layer.send(channel, name)
        assert await layer.receive(channel) == name


class Elsewhere:
    """A thread with a loop that has a layer open."""

    def __init__(self, url: str) -> None:
        self.layer = MessageLayer(url)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.layer.open(), self.loop).result(LIMIT_SECONDS)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.layer.close(), self.loop).result(LIMIT_SECONDS)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_SECONDS)

    def exchange(self, name: str) -> None:
        """Receive in the thread what is published there."""
        asyncio.run_coroutine_threadsafe(exchange(self.layer, name), self.loop).result(LIMIT_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.get_loop().run_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
