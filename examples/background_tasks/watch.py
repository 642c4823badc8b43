"""Prints the progress of all tasks: `python watch.py`, until Ctrl-C."""

import asyncio
import os
from contextlib import suppress

from pgchannels import MessageLayer


async def main(url: str) -> None:
    """Follow the topic."""
    async with MessageLayer(url) as layer, layer.subscribe("imports") as subscription:
        print("waits for imports", flush=True)
        async for message in subscription:
            match message.payload:
                case {"file": file, "state": "failed", "reason": reason}:
                    print(f"{file} failed: {reason}", flush=True)
                case {"file": file, "state": state, "rows": rows}:
                    print(f"{file} {state}: {rows} prices", flush=True)


if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/shop")
with suppress(KeyboardInterrupt):
    asyncio.run(main(os.environ["PGCHANNELS_URL"]))
