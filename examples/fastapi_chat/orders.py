"""The rows of a table, for a card beside the chat: pages get all of them first, then each change."""

import json
import os
from typing import Any

import asyncpg

# `pgchannels demo` creates the table, with a trigger that publishes its changes to this topic.
TOPICS = ["orders"] if os.environ.get("CHAT_ORDERS") else []
ALL = "SELECT coalesce(json_agg(orders ORDER BY id), '[]') FROM orders"


async def all_orders() -> dict[str, Any]:
    """All rows, as a message for a page."""
    connection = await asyncpg.connect(os.environ["PGCHANNELS_URL"])
    try:
        orders = await connection.fetchval(ALL)
    except asyncpg.UndefinedTableError:
        orders = "[]"  # somebody has dropped it
    finally:
        await connection.close()
    return {"type": "orders.all", "orders": json.loads(orders)}
