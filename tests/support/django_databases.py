"""A database as Django writes it down, and the ways to reach its server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import URL, make_url

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def django_database(url: str) -> dict[str, Any]:
    """The same database as an entry of Django's `DATABASES`."""
    parsed = make_url(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parsed.database or "",
        "USER": parsed.username or "",
        "PASSWORD": parsed.password or "",
        "HOST": host(parsed),
        "PORT": str(port(parsed)),
    }


def host(url: URL) -> str:
    """A name, an address, or the folder of a socket."""
    return url.host or str(url.query["host"])


def port(url: URL) -> int:
    """The port, which is a part of a socket's name as well."""
    return url.port or int(str(url.query.get("port", 5432)))


async def connection_count(url: str) -> int:
    """How many connections to this database there are, apart from the one that counts."""
    connection = await asyncpg.connect(url)
    try:
        count = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(count)
    finally:
        await connection.close()


async def has_tables(url: str, *, schema: str = "pgchannels") -> bool:
    """Whether anything is left in the schema of the layer."""
    connection = await asyncpg.connect(url)
    try:
        return bool(
            await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1)",
                schema,
            )
        )
    finally:
        await connection.close()


@asynccontextmanager
async def tcp_road(url: str) -> AsyncIterator[dict[str, Any]]:
    """The same database by a port of this machine, whatever the road of the URL is."""
    async with _Relay(url) as relay:
        server = await asyncio.start_server(relay.carry, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield django_database(url) | {"HOST": "127.0.0.1", "PORT": port}


@asynccontextmanager
async def socket_road(url: str, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """The same database by a socket in this folder, whatever the road of the URL is."""
    async with _Relay(url) as relay:
        server = await asyncio.start_unix_server(relay.carry, folder / ".s.PGSQL.6543")
        async with server:
            yield django_database(url) | {"HOST": str(folder), "PORT": "6543"}


class _Relay:
    """Carries bytes between its callers and the server of a URL."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._carrying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "_Relay":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._carrying:
            task.cancel()
        if self._carrying:
            await asyncio.wait(self._carrying)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await self._connect()
        for source, sink in ((reader, server_writer), (server_reader, writer)):
            task = asyncio.create_task(_copy(source, sink))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if host(self._url).startswith("/"):
            return await asyncio.open_unix_connection(f"{host(self._url)}/.s.PGSQL.{port(self._url)}")
        return await asyncio.open_connection(host(self._url), port(self._url))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()
        with suppress(ConnectionError):
            await sink.wait_closed()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()
