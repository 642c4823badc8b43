"""Where the database is, and new connections to whichever of its servers takes writes."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy.ext.asyncio import AsyncEngine

from pgchannels.database.failures import in_words, is_connection_failure, loss_recognised
from pgchannels.database.url import DatabaseTarget, Host, parse_url

CONNECT_TIMEOUT_SECONDS: Final = 10

# Whoever may create in another schema of a path defines operators and functions that our statements would run.
SEARCH_PATH: Final = "pg_catalog, pg_temp"

# A role or a database may have others; and a server does not know all of them.
_SETTINGS: Final = {
    "search_path": SEARCH_PATH,
    "default_transaction_isolation": "read committed",  # our functions take several snapshots
    "statement_timeout": "0",  # whoever asks sets limits of its own
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",  # who listens is idle
    "work_mem": "16MB",  # a page of the log stays in memory: no temp_file_limit is met
    "TimeZone": "UTC",  # a day has 24 hours
    "default_tablespace": "",  # the log's tables take none
    "plpgsql.extra_errors": "none",
    "plpgsql.extra_warnings": "none",
}
_PAIRS: Final = ", ".join(f"('{name}', '{value}')" for name, value in _SETTINGS.items())
PIN_SETTINGS: Final = f"""
    SELECT pg_catalog.count(pg_catalog.set_config(setting.name, setting.value, false))
    FROM (VALUES {_PAIRS}) AS setting (name, value) WHERE pg_catalog.current_setting(setting.name, true) IS NOT NULL
"""  # noqa: S608

_PREPARE: Final = f"""
    SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool,
           ({PIN_SETTINGS})
"""


class HostsRefused(asyncpg.PostgresError):
    """Every host refused the connection, and trying again would not mend it; the text has the reason of each."""


class Database:
    """Where the database is: a URL as libpq or SQLAlchemy write it, or an engine whose settings are taken over.

    :raises ConfigurationError: the URL cannot be used, or asks for a server that takes no writes.
    """

    def __init__(self, target: DatabaseTarget) -> None:
        self.engine: AsyncEngine | None = target if isinstance(target, AsyncEngine) else None
        self._url = None if isinstance(target, AsyncEngine) else parse_url(target)
        self._latest: Host | None = None

    async def open(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A new connection to the first host that is a primary, beginning with the one that was so the last time.

        It takes no longer than CONNECT_TIMEOUT_SECONDS. Connections of an engine are opened by its pool.

        :raises ConnectionError: no host can be used now; the text has the reason of each.
        :raises HostsRefused: as well, and no host is worth trying again.
        """
        assert self._url is not None, "the engine's pool opens its connections"
        failures: dict[Host, Exception] = {}
        for host in sorted(self._url.hosts, key=lambda host: host != self._latest):
            try:
                connection = await self._open(host)
            except Exception as failure:  # whatever it is, another host may do
                failures[host] = failure
            else:
                self._latest = host
                return connection
        raise _no_host(failures) from next(iter(failures.values()))

    async def _open(self, host: Host) -> "asyncpg.Connection[asyncpg.Record]":
        async with asyncio.timeout(self._seconds_for_each()):
            connection = await self._connected(host)
            try:
                await prepare(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _connected(self, host: Host) -> "asyncpg.Connection[asyncpg.Record]":
        assert self._url is not None
        return await asyncpg.connect(
            self._url.dsn,
            host=host.name or None,
            port=host.port,
            user=self._url.user,
            password=self._url.password,
            database=self._url.database,
            target_session_attrs=SessionAttribute.any,  # whatever is asked for, we look for a primary ourselves
        )

    def _seconds_for_each(self) -> float:
        # One host that gives no answer must not take the time of all others, nor of what comes after the last.
        assert self._url is not None
        hosts = len(self._url.hosts)
        return CONNECT_TIMEOUT_SECONDS / (hosts + 1) if hosts > 1 else CONNECT_TIMEOUT_SECONDS


async def prepare(connection: "asyncpg.Connection[Any]") -> None:
    """Give a connection the settings that our statements need, whatever its role, its database or its URL sets.

    :raises ConnectionError: its server takes no writes, as long as it is a standby or its transactions are read-only.
    """
    with loss_recognised(connection):
        row = await connection.fetchrow(_PREPARE)
    assert row is not None
    is_standby, is_read_only, _ = row
    if is_standby:
        raise ConnectionError("it is a standby, which takes no writes until it is promoted")
    if is_read_only:
        raise ConnectionError("it takes no writes: default_transaction_read_only is on")


def _no_host(failures: Mapping[Host, Exception]) -> Exception:
    text = "; ".join(f"{host}: {in_words(failure)}" for host, failure in failures.items())
    if any(map(is_connection_failure, failures.values())):
        return ConnectionError(text)
    return HostsRefused(text)
