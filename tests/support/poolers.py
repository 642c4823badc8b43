"""Poolers before a server: PgBouncer and Pgpool-II."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import make_url

from pgchannels.embedded import EmbeddedServer
from tests.support.programs import free_port, running


@contextmanager
def pgbouncer(server: EmbeddedServer | str, *, mode: str, most: int = 20, user: str = "postgres") -> Iterator[str]:
    """The URL of the server through a PgBouncer in this mode, with so many sessions of the server at most.

    They are all of this user, whoever asks.
    """
    port, (folder_of_server, port_of_server) = free_port(), _socket_of(server)
    with _folder_of_account(folder_of_server, "pgbouncer") as folder:
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={folder_of_server} port={port_of_server} user={user}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {most}\nserver_login_retry = 1\nmax_client_conn = 500\n"
        )
        with _running_as_owner(folder, [_program("pgbouncer"), str(settings)], ready="process up", end=signal.SIGTERM):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


@contextmanager
def pgpool(server: EmbeddedServer | str, *, most: int = 60) -> Iterator[str]:
    """The URL of the server through a Pgpool-II, which gives each of so many clients at most a session of its own."""
    port, (folder_of_server, port_of_server) = free_port(), _socket_of(server)
    with _folder_of_account(folder_of_server, "pgpool") as folder:
        settings, nothing = folder / "pgpool.conf", folder / "nothing.conf"
        nothing.touch()
        settings.write_text(
            f"listen_addresses = '127.0.0.1'\nport = {port}\nsocket_dir = '{folder}'\n"
            f"pcp_listen_addresses = ''\npcp_port = {free_port()}\npcp_socket_dir = '{folder}'\n"
            f"wd_ipc_socket_dir = '{folder}'\npid_file_name = '{folder}/pgpool.pid'\nlogdir = '{folder}'\n"
            "backend_clustering_mode = 'streaming_replication'\nsr_check_period = 0\nload_balance_mode = off\n"
            "enable_pool_hba = off\n"
            f"backend_hostname0 = '{folder_of_server}'\nbackend_port0 = {port_of_server}\n"
            "backend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'\nfailover_on_backend_error = off\n"
            f"num_init_children = {most}\nmax_pool = 1\nlog_min_messages = log\n"
        )
        command = [_program("pgpool"), "-n", "-f", str(settings), "-F", str(nothing), "-a", str(nothing)]
        with _running_as_owner(folder, command, ready="successfully started", end=signal.SIGINT):
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _socket_of(server: EmbeddedServer | str) -> tuple[Path, int]:
    if isinstance(server, EmbeddedServer):
        return server.socket_directory, server.port
    url = make_url(server)
    return Path(str(url.query["host"])), int(str(url.query["port"]))


@contextmanager
def _folder_of_account(folder_of_server: Path, name: str) -> Iterator[Path]:
    owner = folder_of_server.stat()
    with TemporaryDirectory(prefix=f"{name}-", dir="/tmp") as folder:
        os.chown(folder, owner.st_uid, owner.st_gid)
        yield Path(folder)


@contextmanager
def _running_as_owner(folder: Path, command: list[str], *, ready: str, end: signal.Signals) -> Iterator[None]:
    """Run a program that refuses to be root, as the account of its folder, until the signal that ends it at once."""
    owner = folder.stat()
    for path in folder.iterdir():
        os.chown(path, owner.st_uid, owner.st_gid)
    as_owner = [sys.executable, "-c", _AS_ACCOUNT, str(owner.st_uid), str(owner.st_gid), *command]
    with running(as_owner, folder=folder, environment={}) as program:
        try:
            program.line(ready)
            yield
        finally:
            program.process.send_signal(end)  # before it is killed: it has shared memory to give back
            program.end()


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, f"install it, on Debian with `apt-get install {name.replace('pgpool', 'pgpool2')}`"
    return found


_AS_ACCOUNT = """
import os, sys
account, group, program, *arguments = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(account))
os.execv(program, [program, *arguments])
"""
