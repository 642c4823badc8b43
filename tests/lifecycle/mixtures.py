"""Mixtures of loops and threads, many rounds of each: `python -m tests.lifecycle.mixtures URL ROUNDS [MIXTURE …]`.

Fails when a process has more after all rounds than after half of them. A thousand rounds of all take some minutes.
"""

import asyncio
import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pgchannels import MessageLayer

LIMIT_SECONDS = 60
SPARE_OBJECTS = 300  # of half of the rounds together: a node that is kept has thousands
SPARE_KILOBYTES = 8 * 1024  # the allocator's own; half of a thousand rounds that keep a sender take 40 MiB

Mixture = Callable[[MessageLayer, int], None]


def main(url: str, rounds: int, *mixtures: str) -> None:
    """Play mixtures, one after another."""
    warnings.simplefilter("ignore", ResourceWarning)  # raw loops leave what Python warns of
    warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads
    for name in mixtures or MIXTURES:
        before, after = play(url, MIXTURES[name], rounds)
        print(f"{name}: {before}, then {after}", flush=True)
        assert after.threads <= before.threads, name
        assert after.sockets <= before.sockets, name
        assert after.objects <= before.objects + SPARE_OBJECTS, name
        assert after.kilobytes <= before.kilobytes + SPARE_KILOBYTES, name


def play(url: str, mixture: Mixture, rounds: int) -> tuple["Belongings", "Belongings"]:
    """What this process has after half of the rounds, and after all."""
    layer = MessageLayer(url, heartbeat=1)
    found = []
    for number in range(1, rounds + 1):
        mixture(layer, number)
        if number in (rounds // 2, rounds):
            layer.sync.publish("room", number)  # sweeps
            layer.sync.close()
            found.append(Belongings.now())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pgchannels")]
    return found[0], found[1]


@dataclass(frozen=True)
class Belongings:
    """What a process has."""

    kilobytes: int
    objects: int
    threads: int
    sockets: int

    @classmethod
    def now(cls) -> Self:
        """Of this process."""
        gc.collect()
        links = Path("/proc/self/fd").iterdir()
        return cls(
            kilobytes=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
            objects=len(gc.get_objects()),
            threads=threading.active_count(),
            sockets=sum(link.is_symlink() and str(link.readlink()).startswith("socket:") for link in links),
        )


def threads_in_turn_with_loops(layer: MessageLayer, number: int) -> None:
    """A thread sends, then a loop opens the layer and hears itself."""
    in_a_thread(lambda: layer.sync.publish("room", number))
    asyncio.run(exchange(layer, number))


def loops_that_only_send(layer: MessageLayer, number: int) -> None:
    """A loop for each message, beside a thread."""
    sending = threading.Thread(target=layer.sync.publish, args=("room", number))
    sending.start()
    asyncio.run(send(layer, number))
    sending.join(LIMIT_SECONDS)


def loops_at_once(layer: MessageLayer, number: int) -> None:
    """One loop opens the layer while another one sends, and forgets to close it."""
    receiving = threading.Thread(target=lambda: asyncio.run(forget_to_close(layer, number)))
    receiving.start()
    asyncio.run(send(layer, number))
    receiving.join(LIMIT_SECONDS)


def raw_loops(layer: MessageLayer, number: int) -> None:
    """A loop is closed with all of its tasks; the next send, or the next opening, sweeps it."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(forget_to_close(layer, number))
    loop.close()
    if number % 2:
        layer.sync.publish("room", number)


def closing_in_turn(layer: MessageLayer, number: int) -> None:
    """The background sender ends with each message."""
    layer.sync.publish("room", number)
    layer.sync.close()
    asyncio.run(send_and_close(layer, number))


def forks(layer: MessageLayer, number: int) -> None:
    """A child sends, and in each tenth round opens the layer, as its parent goes on."""
    layer.sync.publish("room", number)
    child = os.fork()
    if not child:
        if number % 10:
            layer.sync.publish("room", number)
        else:
            asyncio.run(exchange(layer, number))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def exchange(layer: MessageLayer, number: int) -> None:
    async with layer:
        await hear_oneself(layer, number)


async def forget_to_close(layer: MessageLayer, number: int) -> None:
    await layer.open()
    await hear_oneself(layer, number)


async def hear_oneself(layer: MessageLayer, number: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS), layer.subscribe("own") as subscription:
        position = await layer.publish("own", number)
        while (await anext(subscription)).position != position:
            pass


async def send(layer: MessageLayer, number: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        await layer.publish("room", number)


async def send_and_close(layer: MessageLayer, number: int) -> None:
    await send(layer, number)
    await layer.close()


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(LIMIT_SECONDS)


MIXTURES: dict[str, Mixture] = {
    mixture.__name__: mixture
    for mixture in (threads_in_turn_with_loops, loops_that_only_send, loops_at_once, raw_loops, closing_in_turn, forks)
}

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
