"""Tasks as a worker such as Celery runs them: plain functions, in forked processes or threads without an event loop."""

import csv
import os

import psycopg

from pgchannels import MessageLayer

if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/shop")
URL = os.environ["PGCHANNELS_URL"]
# Made at import, before the worker forks: each process connects with its first message.
layer = MessageLayer(URL)

STORE = """
INSERT INTO prices (item, price) VALUES (%s, %s) ON CONFLICT (item) DO UPDATE SET price = excluded.price
"""


def import_prices(file: str) -> int:
    """Import all prices of a file or, if one of them is wrong, none; returns how many."""
    try:
        with psycopg.connect(URL) as connection:  # commits at the end of the block, or rolls back
            return store_prices(file, connection)
    except Exception as error:
        reason = str(error).splitlines()[0]
        layer.sync.publish("imports", {"file": file, "state": "failed", "reason": reason})
        raise


def store_prices(file: str, connection: psycopg.Connection) -> int:
    """Publish progress at once, and the result when the prices can be seen: with their transaction."""
    rows = 0
    with open(file, newline="") as lines:  # noqa: PTH123 -- the name as the user gave it
        for row in csv.DictReader(lines):
            connection.execute(STORE, (row["item"], row["price"]))
            rows += 1
            layer.sync.publish("imports", {"file": file, "state": "running", "rows": rows})
    layer.sync.publish("imports", {"file": file, "state": "done", "rows": rows}, connection=connection)
    return rows
