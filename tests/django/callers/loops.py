# An event loop of its own for each of a hundred messages.
import asyncio

import django

django.setup()

from news.sending import send_from_loop  # noqa: E402 (needs the apps)

for number in range(100):
    asyncio.run(send_from_loop(number))
