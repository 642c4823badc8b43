"""Sends the mails of orders: `python mailer.py`. Several can run; each mail is sent by one of them."""

import asyncio
import os

from pgchannels import MessageLayer


async def main() -> None:
    """Take one job after another."""
    async with MessageLayer(os.environ["PGCHANNELS_URL"]) as layer:
        print("waits for orders", flush=True)
        while True:
            job = await layer.receive("mails")
            print(f"mails {job['to']} about order {job['order']}", flush=True)


asyncio.run(main())
