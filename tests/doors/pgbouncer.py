"""A PgBouncer before a server."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pgchannels.embedded import EmbeddedServer
from tests.support.programs import free_port, running


@contextmanager
def pgbouncer(server: EmbeddedServer, *, mode: str, most: int = 20) -> Iterator[str]:
    """The URL of the server through a PgBouncer in this mode, with so many sessions of the server at most."""
    port = free_port()
    owner = server.data_directory.stat()
    with TemporaryDirectory(prefix="pgbouncer-", dir="/tmp") as folder:
        settings = Path(folder) / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={server.socket_directory} port={server.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = {most}\n"
        )
        for path in (Path(folder), settings):
            os.chown(path, owner.st_uid, owner.st_gid)
        command = [sys.executable, "-c", _AS_ACCOUNT, str(owner.st_uid), str(owner.st_gid), _program(), str(settings)]
        with running(command, folder=Path(folder), environment={}) as program:
            program.line("process up")
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _program() -> str:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, "install PgBouncer, on Debian with `apt-get install pgbouncer`"
    return found


# It refuses to be root.
_AS_ACCOUNT = """
import os, sys
account, group, program, settings = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(account))
os.execv(program, [program, settings])
"""
