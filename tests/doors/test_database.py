"""Reaching the database: what others write in URLs and settings works, or is refused by name; errors say what to do."""

import asyncio
import errno
import os
import re
import secrets
import signal
import socket
import ssl
import struct
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette

from pgchannels import ConfigurationError, DatabaseRefused, DatabaseUnavailable, MessageLayer, PgChannelsError
from pgchannels.cli import main
from pgchannels.database import migrations, parameters
from pgchannels.database.database import CONNECT_TIMEOUT_SECONDS, Database, Password
from pgchannels.database.functions import FUNCTION_TIMEOUT_SECONDS
from pgchannels.database.url import parse_url
from pgchannels.database.wording import in_words
from pgchannels.django import PostgresChannelLayer
from pgchannels.django.database_url import url_of
from pgchannels.embedded import EmbeddedServer
from pgchannels.names import program_name
from pgchannels.starlette import lifespan
from tests.support.django_servers import BACKGROUND, CHANNELS, ROOT, daphne, environment_of, runworker
from tests.support.django_settings import AddDatabase, add_database, channel_layers, the_layer, works
from tests.support.poolers import pgbouncer
from tests.support.programs import free_port, run, running
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.snippets import snippet
from tests.support.tls_server import PASSWORD, SYSTEM_BINARIES, TlsServer, tls_server
from tests.support.waiting import until, within

LIMIT_SECONDS = 10
SECRET = "hunter2"

__all__ = ["add_database"]  # a fixture

NOBODY = "127.0.0.1:1"  # nobody answers there


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without what libpq takes from the environment."""
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE", "PGPASSFILE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """A server with TLS by its port, and with passwords, as those of hosting providers."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PGCHANNELS_POSTGRES", str(SYSTEM_BINARIES))
        with tls_server(tmp_path_factory.mktemp("tls")) as server:
            yield server


def url_to(server: TlsServer, query: str, *, password: str = PASSWORD, database: str = "postgres") -> str:
    """A URL of the server, as a hosting provider would write it."""
    return f"postgresql://shop:{quote(password)}@127.0.0.1:{server.port}/{database}?{query}"


async def answer(target: str | URL) -> dict[str, object]:
    """What a session says of itself that is opened by this URL."""
    connection = await within(Database(target).open())
    try:
        row = await connection.fetchrow(
            "SELECT current_database() AS database, user, current_setting('application_name') AS application,"
            " (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls"
        )
        assert row is not None
        return dict(row)
    finally:
        await connection.close()


WORKS = {
    "SQLAlchemy's ssl (sqlalchemy#6275)": ("ssl=require", {"tls": True}),
    "JDBC's and libpq's ssl=true": ("ssl=true", {"tls": True}),
    "connect_timeout": ("connect_timeout=5", {}),
    "keepalives": ("keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3", {}),
    "tcp_user_timeout": ("tcp_user_timeout=1000", {}),
    "gssencmode of macOS": ("gssencmode=disable", {}),
    "load_balance_hosts": ("load_balance_hosts=random", {}),
    "channel_binding that is only preferred": ("channel_binding=prefer", {}),
    "application_name": ("application_name=shop", {"application": "shop"}),
    "fallback_application_name": ("fallback_application_name=web", {"application": "web"}),
    "both names": ("fallback_application_name=web&application_name=shop", {"application": "shop"}),
    "client_encoding": ("client_encoding=utf8", {}),
    "prepared_statement_cache_size of SQLAlchemy": ("prepared_statement_cache_size=0", {}),
    "statement_cache_size": ("statement_cache_size=0", {}),
    "sslsni": ("sslsni=1&sslcompression=0&sslcertmode=allow", {}),
    "protocol versions of PostgreSQL 18": ("min_protocol_version=3.0&max_protocol_version=latest", {}),
    "no PgBouncer": ("pgbouncer=false", {}),
    "nothing": ("sslmode=&application_name=&", {}),
}


@pytest.mark.parametrize(("query", "expected"), WORKS.values(), ids=WORKS.keys())
async def test_parameter_of_others_works(server: TlsServer, query: str, expected: dict[str, object]) -> None:
    answered = await answer(url_to(server, query))
    assert answered | expected == answered


async def test_options_reach_the_server(server: TlsServer) -> None:
    options = quote("-c geqo_threshold=7 -c application_name=by\\ options")
    connection = await Database(url_to(server, f"options={options}")).open()
    assert await connection.fetchval("SHOW geqo_threshold") == "7"
    await connection.close()


@pytest.mark.parametrize("name", ["dbname", "database"])
async def test_database_may_be_named_in_the_query(server: TlsServer, name: str) -> None:
    answered = await answer(url_to(server, f"{name}=template1", database=""))
    assert answered["database"] == "template1"


async def test_everything_may_be_in_the_query(server: TlsServer) -> None:
    query = {"host": "127.0.0.1", "port": server.port, "user": "shop", "password": PASSWORD, "dbname": "template1"}
    assert (await answer(f"postgresql://?{urlencode(query)}"))["database"] == "template1"


async def test_database_and_user_of_the_environment(server: TlsServer, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PGDATABASE", "template1")
    environment.setenv("PGUSER", "shop")
    environment.setenv("PGPASSWORD", PASSWORD)
    environment.setenv("PGAPPNAME", "by environment")
    answered = await answer(f"postgresql://127.0.0.1:{server.port}")
    assert (answered["database"], answered["user"]) == ("template1", "shop")
    assert answered["application"] == "by environment"


@pytest.mark.parametrize("by", ["PGSERVICE", "query"])
async def test_service_names_the_database(
    server: TlsServer, environment: pytest.MonkeyPatch, tmp_path: Path, by: str
) -> None:
    file = tmp_path / "services"
    file.write_text(
        f"[shop]\nhost=127.0.0.1\nport={server.port}\ndbname=template1\nuser=shop\npassword={PASSWORD}\n"
        "application_name=by service\nconnect_timeout=5\n"
    )
    environment.setenv("PGSERVICEFILE", str(file))
    environment.setenv("PGDATABASE", "nowhere")
    if by == "PGSERVICE":
        environment.setenv("PGSERVICE", "shop")
    answered = await answer("postgresql://" if by == "PGSERVICE" else "postgresql://?service=shop")
    assert (answered["database"], answered["application"]) == ("template1", "by service")


PASSWORDS = {"plain": "plain", "colon": "a:b", "backslash": r"a\b", "both": "\\:a:\\\\:b\\", "spaces": " a b "}


@pytest.mark.parametrize("password", PASSWORDS.values(), ids=PASSWORDS.keys())
async def test_file_of_passwords_is_read_with_its_escapes(server: TlsServer, tmp_path: Path, password: str) -> None:
    connection = await Database(url_to(server, "")).open()
    await connection.execute(f"CREATE ROLE \"a:b\" LOGIN PASSWORD '{password}'")
    try:
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        file = tmp_path / "passwords"
        file.touch(mode=0o600)
        file.write_text(
            f"# a comment\n127.0.0.1:{server.port}:postgres:a\\:c:wrong\n127.0.0.1:1:*:*:wrong\nno entry\n"
            f"127.0.0.1:{server.port}:postgres:a\\:b:{escaped}\n*:*:*:*:wrong"
        )
        url = f"postgresql://a%3Ab@127.0.0.1:{server.port}/postgres?{urlencode({'passfile': file})}"
        assert (await answer(url))["user"] == "a:b"
    finally:
        await connection.execute('DROP ROLE "a:b"')
        await connection.close()


REFUSED = {
    "Neon's channel_binding": (
        {"sslmode": "require", "channel_binding": "require"},
        "channel_binding='require' cannot be obeyed: leave it out; sslmode=verify-full",
    ),
    "gssencmode": ({"gssencmode": "require"}, "gssencmode='require' cannot be obeyed: leave it out, or say disable"),
    "hostaddr": ({"hostaddr": "127.0.0.1"}, "'hostaddr' cannot be obeyed by the driver: give the address as the host"),
    "require_auth": ({"require_auth": "scram-sha-256"}, "'require_auth' cannot be obeyed"),
    "requirepeer": ({"requirepeer": "postgres"}, "'requirepeer' cannot be obeyed"),
    "key of SCRAM": ({"scram_client_key": SECRET}, "'scram_client_key' cannot be obeyed"),
    "roots of the system": ({"sslrootcert": "system"}, "sslrootcert='system' names a file.*ca-certificates.crt"),
    "Supabase's pgbouncer": (
        {"pgbouncer": "true"},
        "pgbouncer='true' cannot be obeyed: leave it out; through a pooler .* poll= or listen_url=",
    ),
    "Npgsql's spelling": ({"SslMode": "require"}, "'SslMode' is no parameter of a connection: did you mean 'sslmode'?"),
    "node's sslmode": ({"sslmode": "no-verify"}, "sslmode.* is none of disable"),
    "unknown service": ({"service": "nowhere"}, "the service of the database, .* is in no service file"),
    "Prisma's schema": ({"schema": "public"}, "'schema' is no parameter of a connection: leave it out"),
    "slip": ({"sslmod": "require"}, "'sslmod' is no parameter of a connection: did you mean 'sslmode'?"),
    "asyncpg's setting": ({"search_path": "shop"}, "'search_path' is no parameter .*options='-c name=value'"),
    "sslmode that is none": ({"sslmode": "maybe"}, "sslmode.* is none of disable, .*verify-full"),
    "ssl that is none": ({"ssl": "maybe"}, "ssl.* is none of disable, .*verify-full"),
    "timeout that is no number": ({"connect_timeout": "soon"}, "connect_timeout.* is no whole number"),
    "idle time that is no number": ({"keepalives_idle": "1s"}, "keepalives_idle.* is no whole number"),
    "missing certificate": ({"sslrootcert": "/nowhere/root.crt"}, "sslrootcert.* there is no such file"),
    "standby": ({"target_session_attrs": "standby"}, "target_session_attrs='standby' asks for a server that takes no"),
}


@pytest.mark.parametrize(("parameters", "reason"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("door", ["URL", "SQLAlchemy's URL", "Django"])
def test_what_cannot_be_obeyed_is_refused_by_name(door: str, parameters: dict[str, str], reason: str) -> None:
    text = f"postgresql://shop:{SECRET}@{NOBODY}/shop?{urlencode(parameters)}"
    django = {"NAME": "shop", "PASSWORD": SECRET, "HOST": "127.0.0.1", "PORT": 1, "OPTIONS": parameters}
    with pytest.raises(ConfigurationError, match=reason) as raised:
        Database(url_of(django) if door == "Django" else text if door == "URL" else make_url(text))
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("port", ["99999", "0", "-1", "5432x", "65536"])
def test_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ConfigurationError, match="port that is no number from 1 to 65535"):
        MessageLayer(f"postgresql://shop:{SECRET}@localhost:{port}/shop")
    with pytest.raises(ConfigurationError, match="PORT is no number from 1 to 65535"):
        url_of({"NAME": "shop", "PORT": port})


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PGCHANNELBINDING", "require", "PGCHANNELBINDING in the environment: channel_binding='require' cannot"),
        ("PGHOSTADDR", "127.0.0.1", "PGHOSTADDR in the environment: 'hostaddr' cannot be obeyed"),
        ("PGSSLMODE", "maybe", "PGSSLMODE in the environment: sslmode is none of"),
        ("PGCONNECT_TIMEOUT", "soon", "PGCONNECT_TIMEOUT in the environment: connect_timeout is no whole number"),
    ],
)
def test_environment_is_refused_by_name(
    environment: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    environment.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=reason):
        Database("postgresql://localhost/shop")


names = st.sampled_from(
    [
        *("host", "port", "user", "password", "dbname", "database", "service", "passfile", "options", "role", "ssl"),
        *("sslmode", "sslcert", "sslkey", "sslcrl", "sslrootcert", "sslnegotiation", "sslpassword", "gsslib", "foo"),
        *("ssl_min_protocol_version", "connect_timeout", "keepalives", "channel_binding", "target_session_attrs"),
        *("application_name", "fallback_application_name", "krbsrvname", "require_auth", "pgbouncer", "hostaddr"),
    ]
)
# No name that would be looked up, and no host but this one.
hosts = st.sampled_from(["127.0.0.1", "[::1]", "", "/nowhere", "127.0.0.1,/nowhere", "a..b", "[::1", "é" * 70, "%00"])
values = st.one_of(
    st.sampled_from(["require", "verify-full", "disable", "direct", "true", "0", "1", "-1", "127.0.0.1", "/nowhere"]),
    st.sampled_from(["TLSv1.3", "/etc/passwd", "/dev/null", "any", "standby", "%zz", "-c a=b", "gssapi"]),
    st.text(max_size=5),
)
ports = st.sampled_from(["", ":1", ":2", ":0", ":99999", ":x", ":-1", ":1,2"])


@given(user=st.text(max_size=5), host=hosts, port=ports, name=st.text(max_size=5), query=st.dictionaries(names, values))
def test_any_url_is_refused_or_its_error_names_host_and_port_and_no_password(
    user: str, host: str, port: str, name: str, query: dict[str, str]
) -> None:
    query = {key: f"/{value}" if key == "host" else value for key, value in query.items()}
    url = (
        f"postgresql://{quote(user, safe='', errors='replace')}:{SECRET}@{host}{port}/{quote(name, safe='')}"
        f"?{urlencode(query | {'connect_timeout': 2}, errors='replace')}"
    )
    with time_limit(), pytest.raises(PgChannelsError) as raised:
        asyncio.run(_open(url))
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    if not isinstance(raised.value, ConfigurationError):
        assert all(str(place) in str(raised.value) for place in parse_url(url).hosts), str(raised.value)


async def _open(url: str) -> None:
    async with asyncio.timeout(LIMIT_SECONDS), MessageLayer(url):
        pass


@contextmanager
def time_limit() -> Iterator[None]:
    """Fail what takes longer, whether it waits or computes."""

    def fail(_signal: int, _frame: object) -> None:
        pytest.fail(f"it took longer than {LIMIT_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, 1.5 * LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Tokens:
    """Passwords of a role, each of which is good until the next one is made."""

    def __init__(self, server: TlsServer) -> None:
        self._url = server.owner_url
        self.latest = ""
        self.asked = 0

    async def renew(self) -> None:
        """Make the passwords that were given out until now worthless."""
        self.latest = secrets.token_hex(8)
        connection = await asyncpg.connect(self._url)
        await connection.execute(f"ALTER ROLE shop PASSWORD '{self.latest}'")
        await connection.close()

    def token(self) -> str:
        """The password of this moment."""
        self.asked += 1
        return self.latest

    async def token_in_time(self) -> str:
        """The same, for who awaits it."""
        await asyncio.sleep(0)
        return self.token()


@pytest.fixture
async def tokens(server: TlsServer) -> AsyncIterator[Tokens]:
    """Passwords that change, as those of cloud providers do each quarter of an hour."""
    tokens = Tokens(server)
    await tokens.renew()
    yield tokens
    connection = await asyncpg.connect(server.owner_url)
    await connection.execute(f"ALTER ROLE shop PASSWORD '{PASSWORD}'")
    await connection.close()


async def end_sessions(server: TlsServer) -> None:
    """Take all connections of the role away."""
    connection = await asyncpg.connect(server.owner_url)
    await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
    await connection.close()


class Text(str):
    """As libraries that keep secrets have it."""


@pytest.mark.parametrize("wrong", [None, 7], ids=["none", "int"])
async def test_listener_survives_a_password_function_that_is_wrong_for_a_moment(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", wrong: object, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = []
    password = make_url(database_url).password

    async def has_asked() -> bool:
        return wrong in answers

    def given() -> Any:
        answers.append(password if is_right else wrong)
        return answers[-1]

    is_right = True
    async with MessageLayer(database_url, password=given) as layer, layer.subscribe("room") as subscription:
        is_right = False
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await until(has_asked)
        is_right = True
        await until_listening_again(layer)
        await within(layer.publish("room", "hello"))
        assert (await within(anext(subscription))).payload == "hello"
    assert "it must return a str" in caplog.text


async def until_listening_again(layer: MessageLayer) -> None:
    async def is_so() -> bool:
        return bool(node_of(layer)._listener.reconnected)

    await until(is_so)


@pytest.mark.parametrize("kind", ["function", "coroutine function", "text"])
async def test_password_is_asked_for_each_connection(server: TlsServer, tokens: Tokens, kind: str) -> None:
    """As asyncpg#553."""
    ways: dict[str, Password] = {"function": tokens.token, "coroutine function": tokens.token_in_time}
    layer = MessageLayer(url_to(server, "", password="wrong"), password=ways.get(kind, Text(tokens.latest)))
    async with layer, layer.subscribe("room") as subscription:
        await layer.publish("room", 1)
        if kind != "text":
            await tokens.renew()
            await end_sessions(server)
        await layer.publish("room", 2)
        assert [(await within(anext(subscription))).payload for _ in range(2)] == [1, 2]
    assert kind == "text" or tokens.asked >= 6


async def test_function_that_fails_is_named_and_its_error_is_not_shown(server: TlsServer) -> None:
    def fail() -> str:
        raise KeyError(SECRET)

    with pytest.raises(DatabaseUnavailable) as raised:
        await MessageLayer(url_to(server, ""), password=fail).open()
    assert str(raised.value) == (
        f"cannot reach the database 'postgres' at 127.0.0.1:{server.port}:"
        " the function that gives the password failed: it raised KeyError"
    )


@pytest.mark.parametrize("error", [StopIteration, CancelledError, TimeoutError], ids=lambda error: error.__name__)
@pytest.mark.parametrize("what", ["password", "address of the database"])
async def test_function_may_raise_what_no_future_can_carry(what: str, error: type[Exception]) -> None:
    def fail() -> str:
        raise error

    url = f"postgresql://shop@{NOBODY}/shop"
    database = Database(url, password=fail) if what == "password" else Database(fail)
    with pytest.raises(ConnectionError, match=f"gives the {what} failed: it raised {error.__name__}"):
        await within(database.open())


@pytest.mark.parametrize("kind", ["function", "coroutine function", "address"])
async def test_function_that_is_slow_is_named(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("pgchannels.database.functions.FUNCTION_TIMEOUT_SECONDS", 0.1)
    ended = threading.Event()

    def slow() -> str:
        ended.wait(LIMIT_SECONDS)
        return ""

    async def slow_to_await() -> str:
        await asyncio.Event().wait()
        return ""

    url = f"postgresql://shop@{NOBODY}/shop"
    ways: dict[str, Password] = {"function": slow, "coroutine function": slow_to_await}
    layer = MessageLayer(url, password=ways[kind]) if kind in ways else None
    what = "password" if layer else "address of the database"
    reason = f"the function that gives the {what} gave no answer within 0.1 seconds"
    try:
        with pytest.raises((DatabaseUnavailable, ConnectionError), match=reason):
            await within(layer.open() if layer else Database(slow).open())
    finally:
        ended.set()


async def test_time_of_functions_is_their_own() -> None:
    """A slow function and a host that does not answer are two errors, each with its own limit."""
    url = f"postgresql://shop@{NOBODY}/shop"
    functions = [Database(url), Database(url, password=lambda: ""), Database(lambda: url, password=lambda: "")]
    limits = [database.open_timeout_seconds for database in functions]
    assert limits == [CONNECT_TIMEOUT_SECONDS + count * FUNCTION_TIMEOUT_SECONDS for count in range(3)]


@pytest.mark.parametrize("given", [None, 7, b"bytes"])
async def test_function_that_returns_no_password_is_named(server: TlsServer, given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"gives the password returned .* the type .*: it must return a str"):
        await MessageLayer(url_to(server, ""), password=lambda: given).open()  # type: ignore[arg-type]


def test_password_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="password must be a str, or a function that returns one") as raised:
        MessageLayer("postgresql://localhost/shop", password=SECRET.encode())  # type: ignore[arg-type]
    assert SECRET not in str(raised.value)


async def test_engines_own_events_give_passwords(server: TlsServer, tokens: Tokens) -> None:
    engine = create_async_engine(make_url(url_to(server, "", password="wrong")).set(drivername="postgresql+asyncpg"))

    @event.listens_for(engine.sync_engine, "do_connect")
    def give_token(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
        parameters["password"] = tokens.token()

    async with MessageLayer(engine) as layer:
        await tokens.renew()
        await end_sessions(server)
        await layer.publish("room", 1)
    await engine.dispose()
    with pytest.raises(ConfigurationError, match="password= goes with a URL"):
        MessageLayer(engine, password=tokens.token)


def test_engine_of_another_driver_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"one of postgresql\+psycopg, and a layer needs postgresql\+asyncpg"):
        MessageLayer(create_async_engine(f"postgresql+psycopg://shop@{NOBODY}/shop"))
    with pytest.raises(ConfigurationError, match="a SQLAlchemy URL of PostgreSQL or an AsyncEngine"):
        MessageLayer(create_engine(f"postgresql+psycopg://shop@{NOBODY}/shop"))  # type: ignore[arg-type]


async def test_backend_of_django_is_asked_for_each_connection(
    server: TlsServer, tokens: Tokens, add_database: AddDatabase
) -> None:
    """As django-migration-linter#313, and the backends for IAM."""
    database = {"ENGINE": "tests.doors.backends.tokens", "OPTIONS": {"token": tokens.token}}
    add_database("shop", server.database | database)
    with channel_layers(database="shop", send_timeout=5):
        layer = the_layer()
        channel = await layer.new_channel()
        await tokens.renew()
        await end_sessions(server)
        await layer.send(channel, {"type": "hello"})
        assert await within(layer.receive(channel)) == {"type": "hello"}
        await layer.close()


async def test_backend_of_django_that_fails_is_named(server: TlsServer, add_database: AddDatabase) -> None:
    def fail() -> str:
        raise KeyError(SECRET)

    database = {"ENGINE": "tests.doors.backends.tokens", "OPTIONS": {"token": fail}}
    add_database("shop", server.database | database)
    reason = r"the backend of the database 'shop' could not say how to connect: it raised KeyError"
    with channel_layers(database="shop", send_timeout=1):
        with pytest.raises(DatabaseUnavailable, match=reason) as raised:
            await the_layer().send("queue", {"type": "hello"})
        assert SECRET not in str(raised.value)
        with pytest.raises(DatabaseUnavailable, match=reason):
            await the_layer().new_channel()


@pytest.mark.parametrize("door", ["alias", "keys"])
async def test_backend_that_derives_from_postgresql_is_one(
    server: TlsServer, add_database: AddDatabase, door: str
) -> None:
    options = {"OPTIONS": {"token": lambda: PASSWORD}} if door == "alias" else {}
    database = server.database | {"ENGINE": "tests.doors.backends.tokens"} | options
    add_database("shop", database)
    with channel_layers(**({"database": "shop"} if door == "alias" else database)):
        assert await works(the_layer())


@pytest.mark.parametrize("engine", ["django.db.backends.sqlite3", "nowhere.to.be.found"])
async def test_backend_of_another_vendor_is_refused(add_database: AddDatabase, engine: str) -> None:
    database = {"ENGINE": engine, "NAME": "shop"}
    with channel_layers(**database), pytest.raises(ConfigurationError, match=rf"ENGINE is '{engine}'; .* PostgreSQL"):
        await the_layer().new_channel()
    if engine.startswith("django"):
        add_database("shop", database)
        with channel_layers(database="shop"), pytest.raises(ConfigurationError, match=rf"ENGINE is '{engine}'"):
            await the_layer().new_channel()


@pytest.fixture(scope="module")
def logical_server() -> Iterator[EmbeddedServer]:
    """A server from which changes can be replicated."""
    with EmbeddedServer(durable=True, settings={"wal_level": "logical"}) as server:
        yield server


async def test_publication_for_all_tables_stops_nothing(logical_server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(logical_server.url())
    await connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    await connection.close()
    await migrations.upgrade(logical_server.url())
    for expiry in (60, 600):  # another one than the log keeps messages for
        async with MessageLayer(logical_server.url(), expiry=expiry) as layer, layer.subscribe("room") as subscription:
            await layer.publish("room", 1)
            assert (await within(anext(subscription))).payload == 1
            await layer.send("queue", 2)
            assert await within(layer.receive("queue")) == 2
    logical_server.kill()
    logical_server.start()  # another epoch of the log
    async with MessageLayer(logical_server.url(), expiry=700) as layer:
        await layer.publish("room", 1)
    without = """
        SELECT array_agg(relname) FROM pg_class WHERE relnamespace = 'pgchannels'::regnamespace AND relkind = 'r'
        AND relpersistence = 'p' AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary)
    """
    connection = await asyncpg.connect(logical_server.url())
    assert await connection.fetchval(without) is None
    await connection.close()


async def test_sessions_and_nodes_say_which_process_they_are_of(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """As in channels_postgres, whose connections are anonymous."""
    sessions = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> $1"
    nodes = "SELECT host, process_id, process FROM pgchannels.node_status"
    async with MessageLayer(database_url):
        names = await connection.fetch(sessions, connection.get_server_pid())
        assert [name for (name,) in names] == [f"pgchannels {program_name()}"]
        assert [tuple(row) for row in await connection.fetch(nodes)] == [
            (socket.gethostname(), os.getpid(), program_name())
        ]
    separator = "&" if "?" in database_url else "?"
    async with MessageLayer(f"{database_url}{separator}application_name=shop"):
        names = await connection.fetch(sessions, connection.get_server_pid())
        assert [name for (name,) in names] == ["shop"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/daphne", "daphne"),
        ("manage.py", "manage.py"),
        ("/lib/uvicorn/__main__.py", "uvicorn"),
        ("-c", "python"),
        ("", "python"),
        ("/usr/bin/caf\udce9", "caf?"),
    ],
)
def test_program_is_named(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [path])
    assert program_name() == name


@pytest.fixture
async def later(database_url: str) -> AsyncIterator[Proxy]:
    """A server that is not there yet, as in docker-compose; `restore` starts it."""
    async with Proxy(database_url) as proxy:
        proxy.refuse()
        yield proxy


async def test_lifespan_waits_for_a_server_that_starts_later(later: Proxy, caplog: pytest.LogCaptureFixture) -> None:
    layer = MessageLayer(later.url)
    app = Starlette()

    async def serve() -> None:
        async with lifespan(layer, wait=LIMIT_SECONDS)(app):
            await layer.publish("room", 1)

    serving = asyncio.create_task(serve())
    await until(has_logged(caplog, "waiting for the database: cannot reach the database "))
    assert f"127.0.0.1:{later.port}: connection refused; start the server" in caplog.text
    later.restore()
    await within(serving)


async def test_lifespan_waits_for_tables(empty_database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    layer = MessageLayer(empty_database_url)
    opening = asyncio.create_task(layer.open(wait=LIMIT_SECONDS))
    await until(has_logged(caplog, "has no pgchannels tables in the schema 'pgchannels': run `pgchannels upgrade"))
    await migrations.upgrade(empty_database_url)
    await within(opening)
    await layer.close()


async def test_opening_waits_for_a_database_that_is_created_later(
    server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"pgchannels_later_{os.getpid()}"
    url = make_url(server_url).set(database=name).render_as_string(hide_password=False)
    layer = MessageLayer(url)
    opening = asyncio.create_task(layer.open(wait=LIMIT_SECONDS))
    await until(has_logged(caplog, f'database "{name}" does not exist; create it'))
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        await migrations.upgrade(url)
        await within(opening)
        await layer.close()
    finally:
        opening.cancel()
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.close()


async def test_waiting_ends_in_time_with_the_reason() -> None:
    layer = MessageLayer(f"postgresql://shop:{SECRET}@{NOBODY}/shop")
    with pytest.raises(DatabaseUnavailable, match=r"'shop' at 127\.0\.0\.1:1: connection refused; start the"):
        await within(layer.open(wait=0.1))
    with pytest.raises(ConfigurationError, match="wait must be 0, or a number of seconds"):
        await layer.open(wait=-1)


def has_logged(caplog: pytest.LogCaptureFixture, text: str) -> Callable[[], Awaitable[bool]]:
    """Whether something was logged."""

    async def look() -> bool:
        return text in caplog.text

    return look


async def test_uvicorn_and_worker_come_up_before_their_server(later: Proxy, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "import os\n"
        "from starlette.applications import Starlette\n"
        "from pgchannels import MessageLayer\n"
        "from pgchannels.starlette import lifespan\n"
        "app = Starlette(lifespan=lifespan(MessageLayer(os.environ['PGCHANNELS_URL']), wait=60))\n"
    )
    uvicorn = ["uvicorn", "--port", str(free_port()), "main:app"]
    with (
        running(uvicorn, folder=tmp_path, environment=environment_of(later.url)) as server,
        runworker(*CHANNELS, folder=BACKGROUND, url=later.url) as worker,
    ):
        for program in (server, worker):
            await asyncio.to_thread(program.line, "waiting for the database: cannot reach the database")
        later.restore()
        await asyncio.to_thread(server.line, "Uvicorn running on")
        layer = PostgresChannelLayer(later.url)
        await layer.send(CHANNELS[0], {"type": "generate", "id": 7})
        await asyncio.to_thread(worker.line, "generated 7.")
        await layer.close()


async def test_daphne_comes_up_before_its_server(later: Proxy) -> None:
    def get(port: int) -> int:
        with urlopen(f"http://127.0.0.1:{port}/generate/1/1/") as answer:
            return int(answer.status)

    with daphne("thumbnails.asgi:application", folder=BACKGROUND, url=later.url) as port:
        answering = asyncio.create_task(asyncio.to_thread(get, port))
        later.restore()
        assert await within(answering) == 200


class Wrapped:
    """What tools for tracing hand out in place of a connection: something else, which does what the connection does."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)


@pytest.mark.parametrize("by", ["URL", "engine"])
async def test_connections_may_be_wrapped(database_url: str, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """As dd-trace-py#11852."""
    connect = asyncpg.connect

    async def wrapping_connect(*arguments: Any, **options: Any) -> Wrapped:
        return Wrapped(await connect(*arguments, **options))

    monkeypatch.setattr(asyncpg, "connect", wrapping_connect)
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    async with MessageLayer(engine if by == "engine" else database_url, heartbeat=1) as layer:
        for topic in ("one", "two"):  # the second connection listens, too
            async with layer.subscribe(topic) as subscription:
                await layer.publish(topic, 1)
                assert (await within(anext(subscription))).payload == 1
            await end_all_sessions(database_url)
    await engine.dispose()


async def end_all_sessions(url: str) -> None:
    """Take all other connections to the database away."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import asyncio, os, gevent
from asgiref.sync import async_to_sync
from pgchannels import MessageLayer
from sqlalchemy import make_url

url = os.environ["PGCHANNELS_URL"]
layer = MessageLayer(url, password=lambda: make_url(url).password or "none")


def send(number):
    for _ in range(5):
        layer.sync.publish("room", number)


async def receive():
    async with layer, layer.subscribe("room") as subscription:
        await layer.publish("room", "hello")
        return (await anext(subscription)).payload


gevent.joinall([gevent.spawn(send, number) for number in range(10)], raise_error=True)
print(async_to_sync(receive)())
layer.sync.publish("room", "bye")  # the process ends all the same
"""


def test_greenlets_send_by_a_thread_of_the_system(database_url: str, tmp_path: Path) -> None:
    """As celery and gunicorn with gevent: a loop in a greenlet would be the running one of them all."""
    (tmp_path / "greenlets.py").write_text(GREENLETS)
    environment = {"PGCHANNELS_URL": database_url, "PYTHONPATH": str(ROOT)}
    assert run([sys.executable, "greenlets.py"], folder=tmp_path, environment=environment) == "hello\n"


@pytest.fixture(scope="module")
def plain_server() -> Iterator[EmbeddedServer]:
    """A server with tables, by its socket."""
    with EmbeddedServer() as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


POOLER = "a pooler stands between that gives each transaction another session, as PgBouncer in transaction mode does"


@pytest.mark.parametrize(
    ("mode", "remedy"),
    [
        ("transaction", f"{POOLER}, .*; give the.* listen_url=.* poll="),
        ("statement", "a pooler stands between that allows no transactions, .*; let the pooler use transaction mode"),
    ],
    ids=["transaction", "statement"],
)
@pytest.mark.parametrize("others", [0, 3])
async def test_pooler_that_shares_sessions_is_recognised_at_opening(
    plain_server: EmbeddedServer, mode: str, remedy: str, others: int
) -> None:
    """As authentik#23013."""
    with pgbouncer(plain_server, mode=mode) as url:
        busy = [asyncio.create_task(keep_busy(url)) for _ in range(others)]
        for _ in range(3):
            with pytest.raises(DatabaseRefused, match=rf"'postgres' at 127\.0\.0\.1:\d+.*: {remedy}") as raised:
                await within(MessageLayer(url).open())
            assert "\n" not in str(raised.value)
            with pytest.raises(DatabaseRefused, match=remedy):
                await within(MessageLayer(url).publish("room", 1))
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


async def test_parameter_of_an_engine_that_the_driver_does_not_know_is_named(plain_server: EmbeddedServer) -> None:
    url = make_url(plain_server.url()).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url.update_query_dict({"sslmode": "require"}))
    with pytest.raises(DatabaseRefused, match="asyncpg knows no parameter 'sslmode': take it out"):
        await within(MessageLayer(engine).open())
    await engine.dispose()


@pytest.mark.parametrize("by", ["event", "creator"])
async def test_error_of_an_engines_own_functions_says_where_it_may_come_from(by: str) -> None:
    async def fail() -> Any:
        raise ValueError(SECRET)

    engine = create_async_engine(
        f"postgresql+asyncpg://shop@{NOBODY}/shop", **({"async_creator": fail} if by == "creator" else {})
    )
    if by == "event":

        @event.listens_for(engine.sync_engine, "do_connect")
        def fail_at_connect(*_: object) -> None:
            raise ValueError(SECRET)

    with pytest.raises(DatabaseRefused) as raised:
        await within(MessageLayer(engine).open())
    assert str(raised.value) == (
        f"cannot open the database 'shop' at {NOBODY}: the driver failed with ValueError: it may not know a parameter"
        " of the engine's URL or connect_args, or an event or the creator of the engine raised it"
    )
    await engine.dispose()


@pytest.mark.parametrize(
    ("database", "text"),
    [("nowhere", 'database "nowhere" does not exist; create it'), ("pgbouncer", "correct the name of the database")],
)
async def test_what_a_pooler_refuses_is_refused_at_once(plain_server: EmbeddedServer, database: str, text: str) -> None:
    with pgbouncer(plain_server, mode="session") as url:
        layer = MessageLayer(make_url(url).set(database=database))
        with pytest.raises(DatabaseRefused) as raised:
            await within(layer.open(wait=3600))
        assert text in str(raised.value)
        with pytest.raises(DatabaseRefused):
            await within(MessageLayer(make_url(url).set(database=database), send_timeout=3600).publish("room", 1))


async def keep_busy(url: str) -> None:
    """Ask the server again and again, as other clients of a pooler do."""
    connection = await asyncpg.connect(url)
    try:
        while True:
            await connection.execute("SELECT 1")
    finally:
        connection.terminate()


@pytest.mark.parametrize("most", [3, 20])
async def test_pooler_in_session_mode_is_used(plain_server: EmbeddedServer, most: int) -> None:
    with pgbouncer(plain_server, mode="session", most=most) as url:
        async with MessageLayer(url) as layer, layer.subscribe("room") as subscription:
            await layer.publish("room", 1)
            assert (await within(anext(subscription))).payload == 1


ERRORS = {
    "refused": (
        f"postgresql://shop:{SECRET}@{NOBODY}/shop",
        "cannot reach the database 'shop' at 127.0.0.1:1: connection refused; start the server, or correct host"
        " and port",
    ),
    "no socket": (
        f"postgresql://shop:{SECRET}@/shop?host=/nowhere",
        "cannot reach the database 'shop' at /nowhere:5432: no such file or directory; start the server, or correct"
        " the folder of its socket",
    ),
    "no name": (
        f"postgresql://shop:{SECRET}@no%20name/shop",
        "cannot reach the database 'shop' at no name:5432: its name cannot be resolved; correct the name of the host",
    ),
    "wrong password": (
        f"postgresql://shop:{SECRET}@HERE/postgres",
        "cannot open the database 'postgres' at HERE: password authentication failed for user \"shop\"; correct the"
        " user or the password",
    ),
    "no role": (
        f"postgresql://nobody:{SECRET}@HERE/postgres",
        "cannot open the database 'postgres' at HERE: password authentication failed for user \"nobody\"; correct the"
        " user or the password",
    ),
    "no TLS": (
        f"postgresql://shop:{SECRET}@HERE/postgres?sslmode=disable",
        'cannot open the database \'postgres\' at HERE: no pg_hba.conf entry for host "127.0.0.1", user "shop",'
        ' database "postgres", no encryption; correct the user, or let the server\'s pg_hba.conf admit it',
    ),
    "no database": (
        "postgresql://shop:RIGHT@HERE/nowhere",
        "cannot open the database 'nowhere' at HERE: database \"nowhere\" does not exist; create it, or correct the"
        " name of the database",
    ),
    "no privilege to connect": (
        "postgresql://stranger:RIGHT@HERE/locked",
        "cannot open the database 'locked' at HERE: permission denied for database \"locked\"; GRANT CONNECT ON"
        " DATABASE to the role, or membership of the role that it sets",
    ),
    "no privileges": (
        "postgresql://stranger:RIGHT@HERE/postgres",
        "the database 'postgres' at HERE refused: permission denied for schema pgchannels; `pgchannels upgrade"
        " --grant-to ROLE` gives what it needs",
    ),
    "no tables": (
        "postgresql://stranger:RIGHT@HERE/template1",
        "the database 'template1' at HERE has no pgchannels tables in the schema 'pgchannels': run `pgchannels upgrade"
        " --url …` (in Django with 'pgchannels.django' in INSTALLED_APPS: `manage.py migrate`)",
    ),
    "no such setting": (
        "postgresql://shop:RIGHT@HERE/postgres?options=-c%20nothing=1",
        "cannot open the database 'postgres' at HERE: unrecognized configuration parameter \"nothing\"; correct the"
        " settings in `options`",
    ),
    "no such role to set": (
        "postgresql://shop:RIGHT@HERE/postgres?role=nobodyrole",
        "cannot open the database 'postgres' at HERE: role \"nobodyrole\" does not exist; create the role, or correct"
        " the parameter `role`",
    ),
    "value that a setting cannot have": (
        "postgresql://shop:RIGHT@HERE/postgres?options=-c%20bytea_output=maybe",
        'cannot open the database \'postgres\' at HERE: invalid value for parameter "bytea_output": "maybe"; correct'
        " the settings in `options`",
    ),
    "no writes": (
        "postgresql://shop:RIGHT@HERE/postgres?options=-c%20default_transaction_read_only=on",
        "cannot reach the database 'postgres' at HERE: it takes no writes: default_transaction_read_only is on; turn it"
        " off for the role, the database or the server, or correct the host",
    ),
    "no folder of a socket": (
        f"postgresql://shop:{SECRET}@/shop?host=/etc/passwd",
        "cannot reach the database 'shop' at /etc/passwd:5432: not a directory; correct the folder of its socket",
    ),
    "socket with a long name": (
        f"postgresql://shop:{SECRET}@/shop?host=/{'x' * 110}",
        f"cannot reach the database 'shop' at /{'x' * 110}:5432: AF_UNIX path too long; correct the folder of its"
        " socket, or give it a shorter name",
    ),
}

ANSWERS = {
    "junk": (b"SSH-2.0\r\n", "", "what answers there is no PostgreSQL server; correct host and port"),
    "junk in place of TLS": (
        b"SSH-2.0\r\n",
        "sslmode=require",
        "rejected SSL upgrade; turn TLS on in the server, leave sslmode out, or correct host and port",
    ),
    "nothing": (
        b"",
        "",
        "the connection was closed; look into the log of the server for the reason, or correct host and port",
    ),
    "nothing at startup": (
        b"",
        "sslmode=disable",
        "connection was closed in the middle of operation; look into the log of the server for the reason, or correct"
        " host and port",
    ),
    "reset": (
        None,
        "",
        "connection reset by peer; look into the log of the server for the reason, or correct host and port",
    ),
}


@pytest.mark.parametrize(("answer", "query", "text"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_server_that_is_no_postgresql_is_named(answer: bytes | None, query: str, text: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        if answer is None:
            reset = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(DatabaseUnavailable) as raised:
            await within(MessageLayer(f"postgresql://shop:{SECRET}@127.0.0.1:{port}/shop?{query}").open())
        assert str(raised.value).startswith(f"cannot reach the database 'shop' at 127.0.0.1:{port}: ")
        assert str(raised.value).endswith(text)


@pytest.fixture
async def stranger_here(server: TlsServer) -> AsyncIterator[None]:
    """A role without privileges, and a database to which nobody may connect."""
    connection = await asyncpg.connect(server.owner_url)
    await connection.execute(f"CREATE ROLE stranger LOGIN PASSWORD '{PASSWORD}'")
    await connection.execute("CREATE DATABASE locked")
    await connection.execute("REVOKE CONNECT ON DATABASE locked FROM PUBLIC")
    yield
    await connection.execute("DROP DATABASE locked")
    await connection.execute("DROP ROLE stranger")
    await connection.close()


@pytest.mark.usefixtures("stranger_here")
@pytest.mark.parametrize(("url", "text"), ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.parametrize("door", ["URL", "engine"])
async def test_error_names_the_place_and_says_what_to_do(server: TlsServer, door: str, url: str, text: str) -> None:
    here = f"127.0.0.1:{server.port}"
    url = url.replace("HERE", here).replace("RIGHT", quote(PASSWORD))
    engine = None
    if door == "engine" and "?" not in url and "no%20name" not in url:
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    with pytest.raises(PgChannelsError) as raised:
        await MessageLayer(engine or url).open()
    assert str(raised.value) == text.replace("HERE", here)
    with pytest.raises(PgChannelsError) as raised:
        await MessageLayer(engine or url, send_timeout=0.5).publish("room", 1)
    told = str(raised.value)
    assert text.replace("HERE", here) in told or "did not take the message within send_timeout=0.5 seconds" in told
    assert all(secret not in told for secret in (SECRET, PASSWORD, quote(PASSWORD)))
    if engine is not None:
        await engine.dispose()


@pytest.mark.usefixtures("stranger_here")
def test_command_line_says_what_the_role_lacks(server: TlsServer, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"postgresql://stranger:{quote(PASSWORD)}@127.0.0.1:{server.port}/template1"
    assert main(["upgrade", "--url", url]) == 1
    assert capsys.readouterr().err == (
        f"pgchannels: the database 'template1' at 127.0.0.1:{server.port} refused: permission denied for database"
        " template1; do it as a role that owns the schema, or may CREATE one\n"
    )
    assert main(["upgrade", "--url", f"postgresql://shop:{SECRET}@{NOBODY}/shop"]) == 1
    assert capsys.readouterr().err == f"pgchannels: {ERRORS['refused'][1]}\n"


DOCUMENT = "docs/how-to/database.md"


@pytest.mark.parametrize("text", ["password=token", "do_connect", "wait=60"])
async def test_snippets_of_the_document_make_layers(database_url: str, text: str) -> None:
    names: dict[str, Any] = {}
    url = make_url(database_url)

    def here(written: re.Match[str]) -> str:
        return repr(url.set(drivername=written[1]).render_as_string(hide_password=False))

    source = re.sub(r'"(postgresql(?:\+asyncpg)?)://[^"]*"', here, snippet(DOCUMENT, text))
    exec(source.replace('"password"  #', f"{url.password!r}  #"), names)
    if "app" in names:
        async with names["app"].router.lifespan_context(names["app"]):
            await names["layer"].publish("room", 1)
    else:
        async with names["layer"] as layer:
            await layer.publish("room", 1)
    if "engine" in names:
        await names["engine"].dispose()


def test_document_says_what_becomes_of_each_parameter() -> None:
    told = (ROOT / DOCUMENT).read_text()
    hidden = {name for name in parameters.KNOWN if not re.search(rf"`{name}[`=…]", told)}
    assert all(name.startswith(("keepalives_", "oauth_", "scram_")) for name in hidden - {"sslcrldir", "sslkeylogfile"})


SAYINGS = [
    ssl.SSLError(),
    ssl.SSLCertVerificationError(),
    OSError(errno.ENETUNREACH, ""),
    OSError(errno.EHOSTUNREACH, ""),
    TimeoutError(),
    RuntimeError("cannot schedule new futures after shutdown"),
    TypeError("connect() got an unexpected keyword argument 'sslmode'"),
    KeyError(),
    asyncpg.ClientConfigurationError("root certificate file /nowhere does not exist"),
    asyncpg.QueryCanceledError("canceling statement due to statement timeout"),
    asyncpg.ProtocolViolationError("unsupported startup parameter: options"),
    asyncpg.ProtocolViolationError("extended query protocol not supported by admin console"),
]


def test_document_has_the_errors() -> None:
    reasons = re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \|$", (ROOT / DOCUMENT).read_text(), flags=re.MULTILINE)
    texts = {name: text for name, (*_, text) in (ERRORS | ANSWERS).items()}
    texts |= {repr(error): in_words(error) for error in SAYINGS}
    for name, text in texts.items():
        assert any(reason in text for reason in reasons), name
