"""Takes jobs from the channel "thumbnails"; start as many workers as you like: each job goes to exactly one."""

import asyncio
import os
import signal
import sys
from typing import Any

from pgchannels import Gap, MessageLayer


async def main(url: str) -> None:
    """Work until Ctrl-C or SIGTERM; finish the job that was begun, and leave the others to other workers."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with MessageLayer(url) as layer:
        print(f"worker {os.getpid()} waits for jobs", flush=True)
        while (job := await next_job(layer, stop)) is not None:
            await make_thumbnail(job)
            print(f"worker {os.getpid()} made {job['width']} pixels of {job['photo']}", flush=True)


async def next_job(layer: MessageLayer, stop: asyncio.Event) -> dict[str, Any] | None:
    """The next job, or None once the worker is to stop."""
    receiving = asyncio.create_task(layer.receive("thumbnails", on_gap=report), name="receive")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait((receiving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    receiving.cancel()  # loses nothing: a job that it already has is returned all the same
    try:
        job: dict[str, Any] = await receiving
    except asyncio.CancelledError:
        return None
    return job


def report(gap: Gap) -> None:
    """Say that jobs were lost for good; an application would find out which thumbnails are missing."""
    print(f"worker {os.getpid()}: {gap}", flush=True)


async def make_thumbnail(_job: dict[str, Any]) -> None:
    """Stands for the work. CPU-bound work belongs in `asyncio.to_thread` or a process pool."""
    await asyncio.sleep(0.1)


if __name__ == "__main__":
    if not os.environ.get("PGCHANNELS_URL"):
        sys.exit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/photos")
    asyncio.run(main(os.environ["PGCHANNELS_URL"]))
