"""Forks a worker for each line that it reads; the worker writes which jobs it takes and has done, until it is killed.

A fork of a process that has imported everything begins to work in a tenth of the time of a new one.
"""

import asyncio
import os
import sys

from pgchannels import MessageLayer


async def main(url: str, workers: int, visible_after: float | None) -> None:
    """Work with so many tasks, for ever."""
    async with MessageLayer(url, heartbeat=0.5) as layer, asyncio.TaskGroup() as tasks:
        for _ in range(workers):
            tasks.create_task(work(layer, visible_after))


async def work(layer: MessageLayer, visible_after: float | None) -> None:
    """Take one job after another."""
    while True:
        async with layer.claim("jobs", attempts=1_000_000, visible_after=visible_after) as job:
            print("took", job.payload, job.attempts, flush=True)
            await asyncio.sleep(0.001)  # the work
            print("done", job.payload, job.attempts, flush=True)


if __name__ == "__main__":
    _, database, count, seconds = sys.argv
    for _ in sys.stdin:
        if not (process := os.fork()):
            asyncio.run(main(database, int(count), float(seconds) or None))
        print("began", process, 0, flush=True)
        os.waitpid(process, 0)
        print("\ngone", process, 0, flush=True)
