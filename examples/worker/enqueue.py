"""Sends jobs to the channel "thumbnails": `python enqueue.py 20`."""

import asyncio
import os
import sys

from pgchannels import MessageLayer

KEEP_SECONDS = 24 * 3600


async def main(url: str, count: int) -> None:
    """Send this many jobs; all of them are in the database when this returns."""
    async with MessageLayer(url, expiry=KEEP_SECONDS) as layer, asyncio.TaskGroup() as tasks:
        for number in range(1, count + 1):
            tasks.create_task(layer.send("thumbnails", {"photo": f"photo-{number}.jpg", "width": 320}))
    print(f"sent {count} jobs")


if __name__ == "__main__":
    if not os.environ.get("PGCHANNELS_URL"):
        sys.exit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/photos")
    asyncio.run(main(os.environ["PGCHANNELS_URL"], int(sys.argv[1]) if len(sys.argv) > 1 else 10))
