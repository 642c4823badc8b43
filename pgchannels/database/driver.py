"""What the driver has no settings for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, Self, TypeAlias

import asyncpg

# The server may vanish without a word, or a firewall in between may forget the connection.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}

# The driver queries the server about each array type, which takes some milliseconds per connection. PostgreSQL's own
# types are the same everywhere (`pg_type.dat`): by name, the oids of the array and of its elements.
_ARRAY_TYPES: Final = {
    "int4": (1007, 23),
    "int8": (1016, 20),
    "float8": (1022, 701),
    "bytea": (1001, 17),
    "uuid": (2951, 2950),
}

DriverConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Records: TypeAlias = "Sequence[asyncpg.Record]"


class Progress(asyncio.Protocol):
    """Passes on what arrives on a connection, and restarts the time limit with it."""

    def __init__(self, driver: asyncio.Protocol) -> None:
        self._driver = driver
        self._limit: asyncio.Timeout | None = None
        self._seconds = 0.0

    @classmethod
    def of(cls, connection: DriverConnection) -> Self:
        """Insert one between a connection's transport and the driver, which has no setting for this."""
        transport: asyncio.Transport = getattr(connection, "_transport")  # noqa: B009
        progress = cls(transport.get_protocol())  # type: ignore[arg-type]
        transport.set_protocol(progress)
        return progress

    @asynccontextmanager
    async def required_within(self, seconds: float) -> AsyncIterator[None]:
        """Raise `TimeoutError` when nothing arrives for this long."""
        self._seconds = seconds
        async with asyncio.timeout(seconds) as self._limit:
            try:
                yield
            finally:
                self._limit = None

    def data_received(self, data: bytes) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)
        self._driver.data_received(data)

    def eof_received(self) -> bool | None:
        return self._driver.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.connection_lost(error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


def keep_alive(connection: DriverConnection) -> None:
    """Have the operating system detect that the other end is gone."""
    endpoint = getattr(connection, "_transport").get_extra_info("socket")  # noqa: B009 -- asyncpg has no setting for this
    if endpoint.family == socket.AF_UNIX:
        return
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):  # not on every system
            endpoint.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def know_array_types(connection: DriverConnection) -> None:
    """Spare the driver its queries about the types of our statements."""
    unused = dict.fromkeys(("basetype", "range_subtype", "attrtypoids", "attrnames", "basetype_name"))
    array = unused | {"ns": "pg_catalog", "kind": "b", "elemdelim": ",", "depth": 0}
    getattr(connection, "_protocol").get_settings().register_data_types(  # noqa: B009 -- as above
        [
            array | {"name": f"_{name}", "oid": oid, "elemtype": element, "elemtype_name": name}
            for name, (oid, element) in _ARRAY_TYPES.items()
        ]
    )


def close_socket(connection: DriverConnection) -> None:
    """Close a connection's socket after the event loop has closed, when its transport can no longer do it."""
    # The transport would leave it to its loop. uvloop closes all sockets with the loop, and exposes none.
    endpoint = getattr(connection, "_transport").get_extra_info("socket")  # noqa: B009
    if (its_socket := getattr(endpoint, "_sock", None)) is not None:
        with suppress(OSError):
            its_socket.shutdown(socket.SHUT_RDWR)  # also if a forked child holds it, too
        its_socket.close()


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """Raise `CancelledError` if the task was cancelled meanwhile, whatever the driver makes of it."""
    # A cancelled statement may end as if it was not cancelled, or raise the error of its dying connection instead.
    # A task that took this for a success, or for a failure to retry, would never end.
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    if task.cancelling() > before:
        raise asyncio.CancelledError from error
    if error is not None:
        raise error
