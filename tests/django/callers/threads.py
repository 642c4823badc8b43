# A thousand messages from ten threads, as workers with thread pools send them.
from concurrent.futures import ThreadPoolExecutor

import django

django.setup()

from news.sending import send  # noqa: E402 (needs the apps)


def send_hundred(thread):
    for number in range(100):
        send([thread, number])


with ThreadPoolExecutor(10) as threads:
    list(threads.map(send_hundred, range(10)))
