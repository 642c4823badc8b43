"""What the programs of a cluster are told: their ports, their commands and their files of settings."""

import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.programs import is_free

SCOPE: Final = "pgchannels"
LOOPBACK: Final = "127.0.0.1"
# Below the ports that Linux gives to outgoing connections: one of a server that is down stays free.
_PORTS: Final = range(15_000, 32_000)
_POSTGRES: Final = Path("/usr/lib/postgresql")
# The lease of the leader: as short as a busy machine allows.
LEASE_SECONDS: Final = 10
_LEASE: Final = {"ttl": LEASE_SECONDS, "loop_wait": 1, "retry_timeout": 3}
_PARAMETERS: Final = {
    "fsync": "off",  # a process that is killed loses nothing of what it wrote
    "wal_log_hints": "on",  # for pg_rewind
    "max_connections": 120,
    "dynamic_shared_memory_type": "mmap",
    "wal_keep_size": "256MB",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One of the servers: where its PostgreSQL, its Patroni and its way to etcd listen, and its files."""

    name: str
    directory: Path
    port: int
    rest_port: int
    etcd_port: int

    @property
    def data(self) -> Path:
        """The directory of its data."""
        return self.directory / "data"

    @property
    def settings(self) -> Path:
        """The file of Patroni's settings."""
        return self.directory / "patroni.yml"

    @property
    def log(self) -> Path:
        """What its programs write."""
        return self.directory / "log"


def free_ports(count: int) -> list[int]:
    """So many different ports that are free now."""
    shuffled = random.sample(_PORTS, len(_PORTS))
    return [port for port, _ in zip(filter(is_free, shuffled), range(count), strict=False)]


def program(name: str) -> str:
    """Where a program of Debian's packages is."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin")
    assert found is not None, "install Patroni: apt-get install --no-install-recommends patroni etcd-server haproxy"
    return found


def binaries() -> Path:
    """Where Debian's newest PostgreSQL is."""
    versions = sorted(int(path.name) for path in _POSTGRES.glob("*") if (path / "bin/postgres").exists())
    assert versions, "install PostgreSQL: apt-get install --no-install-recommends postgresql-15"
    return _POSTGRES / str(versions[-1]) / "bin"


def etcd_command(directory: Path, port: int, peer_port: int) -> list[str]:
    """One etcd, alone in its cluster."""
    client, peer = f"http://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{peer_port}"
    options = {
        "name": "etcd",
        "data-dir": str(directory / "etcd"),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"etcd={peer}",
    }
    return [program("etcd"), "--unsafe-no-fsync", *(f"--{name}={value}" for name, value in options.items())]


def gateway_command(node: Node, etcd_port: int) -> list[str]:
    """The way from one node to etcd, which can be closed."""
    to = f"--endpoints={LOOPBACK}:{etcd_port}"
    return [program("etcd"), "gateway", "start", to, f"--listen-addr={LOOPBACK}:{node.etcd_port}", "--retry-delay=1s"]


def patroni_settings(node: Node, *, synchronous: bool) -> str:
    """Patroni's file of settings: JSON, which YAML includes."""
    rest, server = f"{LOOPBACK}:{node.rest_port}", f"{LOOPBACK}:{node.port}"
    settings: dict[str, Any] = {
        "scope": SCOPE,
        "name": node.name,
        "restapi": {"listen": rest, "connect_address": rest},
        "etcd3": {"hosts": [f"{LOOPBACK}:{node.etcd_port}"], "use_proxies": True},
        "bootstrap": {
            "dcs": _LEASE
            | {
                "synchronous_mode": synchronous,
                "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": _PARAMETERS},
            },
            "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "no-sync"],
        },
        "postgresql": {
            "listen": server,
            "connect_address": server,
            "data_dir": str(node.data),
            "bin_dir": str(binaries()),
            "pgpass": str(node.directory / "pgpass"),
            "authentication": {"superuser": {"username": "postgres"}, "replication": {"username": "postgres"}},
            "pg_hba": [f"host {what} all {LOOPBACK}/32 trust" for what in ("all", "replication")],
            "parameters": {"unix_socket_directories": str(node.directory)},
            "remove_data_directory_on_rewind_failure": True,
            "remove_data_directory_on_diverged_timelines": True,
        },
    }
    return json.dumps(settings)


def haproxy_settings(port: int, nodes: Sequence[Node]) -> str:
    """HAProxy's, as Patroni recommends them: one port, and behind it whoever says to be the primary."""
    return "\n".join(_haproxy_lines(port, nodes)) + "\n"


def _haproxy_lines(port: int, nodes: Sequence[Node]) -> Iterator[str]:
    yield "defaults"
    yield from _indented({"mode": "tcp", "timeout": "connect 4s"}, "timeout client 30m", "timeout server 30m")
    yield "listen primary"
    yield from _indented({"bind": f"{LOOPBACK}:{port}", "option": "httpchk OPTIONS /primary"})
    yield from _indented({"http-check": "expect status 200"})
    yield from _indented({"default-server": "inter 1s fall 3 rise 2 on-marked-down shutdown-sessions"})
    for node in nodes:
        yield from _indented({"server": f"{node.name} {LOOPBACK}:{node.port} check port {node.rest_port}"})


def _indented(settings: Mapping[str, str], *lines: str) -> list[str]:
    return [f"    {line}" for line in (*(f"{name} {value}" for name, value in settings.items()), *lines)]
