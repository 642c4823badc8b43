"""A primary and a streaming standby, each a PostgreSQL of its own on a unix socket."""

import asyncio
import os
import shutil
import subprocess
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

import asyncpg

from pgchannels.embedded import EmbeddedServer
from tests.support.connections import fetchval
from tests.support.waiting import until

_COPY_LIMIT_SECONDS: Final = 60


class Cluster:
    """Two servers: what is committed on `primary` goes to `standby`, until `promote` makes that a primary, too.

    Calls block. Both servers go with the `with` block, or with the process, however it ends.
    """

    def __init__(self) -> None:
        self.primary = EmbeddedServer(durable=True)
        self.standby = EmbeddedServer(durable=True)
        self._servers = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as servers:
            servers.enter_context(self.primary)
            servers.enter_context(self.standby)
            self._copy(self.primary, to=self.standby)
            self._servers = servers.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._servers.close()

    def kill_primary(self) -> None:
        """SIGKILL the primary."""
        self.primary.kill()

    def promote(self) -> None:
        """Return once the standby is a primary."""
        assert asyncio.run(fetchval(self.standby.url(), "SELECT pg_promote()")), "the standby was not promoted in time"

    async def has_replayed_all(self) -> bool:
        """Whether the standby has all that was committed on the primary until now."""
        # Commits of unlogged rows alone need not be flushed, and then are not sent.
        written = await fetchval(self.primary.url(), "SELECT pg_current_wal_flush_lsn()::text")
        return bool(await fetchval(self.standby.url(), f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"))

    async def checkpoint(self) -> None:
        """Write to disk, on both, all that was committed on the primary until now."""
        await fetchval(self.primary.url(), "CHECKPOINT")
        await until(self.has_replayed_all)
        await fetchval(self.standby.url(), "CHECKPOINT")

    async def wait_for_standby(self) -> None:
        """Make commits on the primary wait for the standby from now on; return once that holds."""
        connection = await asyncpg.connect(self.primary.url())
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        await until(self._is_synchronous)

    async def _is_synchronous(self) -> bool:
        standing = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'"
        return bool(await fetchval(self.primary.url(), standing))

    def exchange(self) -> None:
        """The promoted standby is `primary` from now on, and the other server `standby`, a new copy of it."""
        self.primary, self.standby = self.standby, self.primary
        self._copy(self.primary, to=self.standby)

    def _copy(self, origin: EmbeddedServer, *, to: EmbeddedServer) -> None:
        to.kill()
        data = to.data_directory
        account = data.stat()
        shutil.rmtree(data)
        source = (f"--host={origin.socket_directory}", f"--port={origin.port}", "--username=postgres")
        options = ("--checkpoint=fast", "--write-recovery-conf", f"--pgdata={data}")
        self._run_as(account, "pg_basebackup", *source, *options)
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{to.socket_directory}'\n")
        to.start()

    def _run_as(self, account: os.stat_result, program: str, *arguments: str) -> None:
        is_root = os.geteuid() == 0
        subprocess.run(
            [self.standby.binaries / program, *arguments],
            check=True,
            capture_output=True,
            timeout=_COPY_LIMIT_SECONDS,
            cwd=self.standby.socket_directory,
            user=account.st_uid if is_root else None,
            group=account.st_gid if is_root else None,
            extra_groups=[] if is_root else None,
        )
