"""A PostgreSQL that takes nothing but TLS by its port, with a password or a certificate."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from tests.support.certificates import Authority

SYSTEM_BINARIES = Path("/usr/lib/postgresql/15/bin")  # the packaged ones are built without TLS
PASSWORD = "pass word"

_SETTINGS = """
ssl = on
listen_addresses = '127.0.0.1'
"""
_HBA = """
local   all all                    trust
hostssl all certified 127.0.0.1/32 cert
hostssl all all       127.0.0.1/32 scram-sha-256
"""
_ROLES = f"""
CREATE ROLE shop SUPERUSER LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE certified SUPERUSER LOGIN;
CREATE ROLE guest LOGIN NOINHERIT PASSWORD '{PASSWORD}';
GRANT shop TO guest;
"""


@dataclass(frozen=True, slots=True)
class TlsServer:
    """The database, as Django writes it down for the user `shop`, and the files that one needs."""

    database: dict[str, Any]
    owner_url: str
    root_certificate: Path
    other_root_certificate: Path
    client_certificate: Path
    client_key: Path

    @property
    def port(self) -> int:
        return int(self.database["PORT"])


@contextmanager
def tls_server(folder: Path) -> Iterator[TlsServer]:
    """A server until the end of the block; certificates are in the folder."""
    authority, other_authority = Authority(folder, "authority"), Authority(folder, "other-authority")
    with _ServerWithPort(settings={"max_connections": "20"}) as server:
        _use_tls(server, authority)
        asyncio.run(_fill(server.url()))
        client_certificate, client_key = authority.certify("certified")
        yield TlsServer(
            database={
                "ENGINE": "django.db.backends.postgresql",
                "NAME": "postgres",
                "USER": "shop",
                "PASSWORD": PASSWORD,
                "HOST": "127.0.0.1",
                "PORT": server.port,
            },
            owner_url=server.url(),
            root_certificate=authority.certificate,
            other_root_certificate=other_authority.certificate,
            client_certificate=client_certificate,
            client_key=client_key,
        )


class _ServerWithPort(EmbeddedServer):
    def __init__(self, *, settings: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        super().__init__(settings=settings)


def _use_tls(server: EmbeddedServer, authority: Authority) -> None:
    data = server.data_directory
    certificate, key = authority.certify("server")
    for source, name in ((certificate, "server.crt"), (key, "server.key"), (authority.certificate, "root.crt")):
        target = data / name
        target.touch(mode=0o600)
        target.write_bytes(source.read_bytes())
        if os.geteuid() == 0:
            os.chown(target, data.stat().st_uid, data.stat().st_gid)
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"{_SETTINGS}ssl_ca_file = 'root.crt'\n")
    (data / "pg_hba.conf").write_text(_HBA)
    server.restart()


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_ROLES)
    finally:
        await connection.close()
    await migrations.upgrade(url)
