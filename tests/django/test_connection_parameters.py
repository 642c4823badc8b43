"""What DATABASES says of a connection holds for the layer as for Django: passwords, TLS, services, hosts, roles."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.utils import DatabaseError

from pgchannels import ConfigurationError, PgChannelsError
from pgchannels.database.database import Database
from pgchannels.django.database_url import url_of
from tests.django.impossible import POSTGRESQL
from tests.support.django_settings import AddDatabase, channel_layers, the_layer, works
from tests.support.tls_server import PASSWORD, SYSTEM_BINARIES, TlsServer, tls_server

NO_PASSWORD = {"PASSWORD": ""}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """One server with TLS for the tests of this module."""
    if not SYSTEM_BINARIES.is_dir():
        pytest.skip("there is no PostgreSQL with TLS")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PGCHANNELS_POSTGRES", str(SYSTEM_BINARIES))
        with tls_server(tmp_path_factory.mktemp("tls")) as server:
            yield server


def django_connects(alias: str) -> bool:
    """Whether Django itself gets a connection."""
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, OperationalError):
        return False
    finally:
        connections[alias].close()
        del connections[alias]  # it would keep the settings that it was made with
    return True


async def layer_connects() -> bool:
    """Whether the layer gets a connection."""
    try:
        return await works(the_layer())
    except PgChannelsError:
        return False


async def both_connect(add_database: AddDatabase, database: dict[str, Any]) -> tuple[bool, bool]:
    """Whether Django gets a connection, and whether a layer with this alias does."""
    add_database("shop", database)
    with channel_layers(database="shop", send_timeout=1):
        return await asyncio.to_thread(django_connects, "shop"), await layer_connects()


async def test_connection_is_encrypted_as_sslmode_says(server: TlsServer, add_database: AddDatabase) -> None:
    outcomes = {}
    for mode in ("disable", "prefer", "require"):
        database = server.database | {"OPTIONS": {"sslmode": mode}}
        outcomes[mode] = await both_connect(add_database, database)
    assert outcomes == {"disable": (False, False), "prefer": (True, True), "require": (True, True)}


async def test_certificate_that_is_refused_is_told_as_the_reason_of_its_host(server: TlsServer) -> None:
    options = {"sslmode": "verify-ca", "sslrootcert": str(server.other_root_certificate)}
    with pytest.raises(ConnectionError) as raised:
        await Database(url_of(server.database | {"OPTIONS": options})).open()
    assert str(raised.value).startswith(f"127.0.0.1:{server.port}: its certificate was refused: ")
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
async def test_server_is_verified_against_sslrootcert(server: TlsServer, add_database: AddDatabase, mode: str) -> None:
    for root_certificate, accepted in ((server.root_certificate, True), (server.other_root_certificate, False)):
        database = server.database | {"OPTIONS": {"sslmode": mode, "sslrootcert": str(root_certificate)}}
        assert await both_connect(add_database, database) == (accepted, accepted)


async def test_client_certificate_stands_in_for_a_password(server: TlsServer, add_database: AddDatabase) -> None:
    options = {"sslmode": "require", "sslcert": str(server.client_certificate), "sslkey": str(server.client_key)}
    database = server.database | NO_PASSWORD | {"USER": "certified", "OPTIONS": options}
    assert await both_connect(add_database, database) == (True, True)


async def test_password_is_read_from_passfile(server: TlsServer, add_database: AddDatabase, tmp_path: Path) -> None:
    passfile = tmp_path / "passwords"
    passfile.touch(mode=0o600)
    passfile.write_text(f"127.0.0.1:{server.port}:*:shop:{PASSWORD}\n")
    database = server.database | NO_PASSWORD | {"OPTIONS": {"passfile": str(passfile)}}
    assert await both_connect(add_database, database) == (True, True)


async def test_service_names_the_database(
    server: TlsServer, add_database: AddDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(
        f"[shop]\nhost=127.0.0.1\nport={server.port}\ndbname=postgres\nuser=shop\npassword={PASSWORD}\nsslmode=require\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    database = {"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"service": "shop"}}
    assert await both_connect(add_database, database) == (True, True)


@pytest.mark.parametrize("hosts", ["127.0.0.1,127.0.0.1", "localhost,127.0.0.1"])
async def test_first_of_several_hosts_that_answers_is_taken(
    server: TlsServer, add_database: AddDatabase, hosts: str
) -> None:
    # Nobody answers at port 1 of this machine.
    database = server.database | {"HOST": hosts, "PORT": f"1,{server.port}"}
    database["OPTIONS"] = {"target_session_attrs": "read-write"}
    assert await both_connect(add_database, database) == (True, True)


async def test_server_that_target_session_attrs_excludes_is_not_taken(
    server: TlsServer, add_database: AddDatabase
) -> None:
    database = server.database | {"OPTIONS": {"target_session_attrs": "standby"}}
    assert await both_connect(add_database, database) == (False, False)


async def test_settings_in_options_reach_the_server(server: TlsServer, add_database: AddDatabase) -> None:
    # A role that may do nothing until these settings are made: it would not get this far without them.
    options = {"options": "-c search_path=elsewhere -c role=shop", "application_name": "shop"}
    database = server.database | {"USER": "guest", "OPTIONS": options}
    assert await both_connect(add_database, database) == (True, True)


async def test_role_of_assume_role_is_assumed(server: TlsServer, add_database: AddDatabase) -> None:
    guest = server.database | {"USER": "guest"}
    assert await both_connect(add_database, guest) == (True, False)
    assert await both_connect(add_database, guest | {"OPTIONS": {"assume_role": "shop"}}) == (True, True)


async def test_settings_of_channels_postgres_work_with_another_backend_line(server: TlsServer) -> None:
    configuration = server.database | {"PSYCOPG_OPTIONS": {"min_size": 10, "max_size": 10}}
    with channel_layers(**configuration):
        assert await works(the_layer())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown option": ({"OPTIONS": {"sslmod": "require"}}, "'sslmod'"),
    "sslmode that is none": ({"OPTIONS": {"sslmode": "yes"}}, "sslmode='yes'.*verify-full"),
    "kind of server that is none": ({"OPTIONS": {"target_session_attrs": "fast"}}, "target_session_attrs='fast'"),
    "missing file": (
        {"OPTIONS": {"sslrootcert": "/nowhere/root.crt"}},
        "sslrootcert='/nowhere/.*no such file",
    ),
    "roots of the system": ({"OPTIONS": {"sslrootcert": "system"}}, "sslrootcert='system'"),
    "channel binding": ({"OPTIONS": {"channel_binding": "require"}}, "channel_binding='require'"),
    "encryption by Kerberos": ({"OPTIONS": {"gssencmode": "require"}}, "gssencmode='require'"),
    "method of authentication": ({"OPTIONS": {"require_auth": "scram-sha-256"}}, "'require_auth'"),
    "address beside the name": ({"OPTIONS": {"hostaddr": "127.0.0.1"}}, "'hostaddr'"),
    "more ports than hosts": ({"HOST": "one", "PORT": "1,2"}, "1 hosts in HOST, 2 in PORT"),
    "fewer ports than hosts": ({"HOST": "one,two,three", "PORT": "1,2"}, "3 hosts in HOST, 2 in PORT"),
    "port that is none among several": ({"HOST": "one,two", "PORT": "1,x"}, "PORT"),
}


@pytest.mark.parametrize(("database", "trouble"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_obeyed_is_refused_by_name(database: dict[str, Any], trouble: str) -> None:
    with pytest.raises(ConfigurationError, match=trouble):
        url_of(POSTGRESQL | database)


@pytest.mark.parametrize("options", [{"channel_binding": "prefer"}, {"gssencmode": "disable"}, {"sslsni": 1}])
def test_option_that_asks_for_nothing_is_accepted(options: dict[str, Any]) -> None:
    assert not url_of(POSTGRESQL | {"OPTIONS": options}).query.keys() - {"host", "port"}


def test_hosts_get_as_many_ports() -> None:
    for host, port, expected in (
        ("one,two", "", {"host": "one,two", "port": "5432,5432"}),
        ("one,two", "6000", {"host": "one,two", "port": "6000,6000"}),
        ("one,two", ",6000", {"host": "one,two", "port": "5432,6000"}),
        ("::1", 6000, {"host": "[::1]", "port": "6000"}),
        ("", 6000, {"port": "6000"}),
    ):
        assert url_of(POSTGRESQL | {"HOST": host, "PORT": port}).query == expected


def test_options_stand_above_the_name_as_in_django() -> None:
    url = url_of(POSTGRESQL | {"OPTIONS": {"dbname": "other", "user": "worker", "password": "p"}})
    assert (url.database, url.username, url.password) == ("other", "worker", "p")
