"""Where the database is."""

from collections import deque
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from pgchannels.database.url import DatabaseTarget, _driver_url, _hosts

CONNECT_TIMEOUT_SECONDS = 10


class Database:
    """Where the database is: a URL as libpq or SQLAlchemy write it, or an engine whose settings are taken over."""

    def __init__(self, target: DatabaseTarget) -> None:
        self.engine = target if isinstance(target, AsyncEngine) else None
        self._url = "" if isinstance(target, AsyncEngine) else _driver_url(target)
        self._hosts = deque(_hosts(self._url))

    async def open(self) -> Any:
        if len(self._hosts) < 2:
            return await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_SECONDS)
        return await self._open_any()

    async def _open_any(self) -> Any:
        # The driver has one limit for all hosts: one that gives no answer would take the time of all others.
        seconds = CONNECT_TIMEOUT_SECONDS / (len(self._hosts) + 1)
        failures = []
        for host, port in list(self._hosts):
            try:
                return await asyncpg.connect(self._url, host=host, port=port, timeout=seconds)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as failure:
                failures.append(f"{host}:{port}: {failure!r}")
                if self._hosts[0] == (host, port):  # no other connection that is opened now has found it out
                    self._hosts.rotate(-1)  # begin with another one next time
        raise ConnectionError("; ".join(failures))
