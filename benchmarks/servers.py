"""The servers of a run: each in a private directory, all of them gone with the benchmark, even by SIGKILL."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.contestants import Addresses
from pgchannels.embedded import EmbeddedServer

POSTGRES_SETTINGS: Final = {
    "max_connections": "500",
    "max_locks_per_transaction": "256",  # channels_postgres takes a lock for each channel
    # Off but for the one work that asks for it.
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",
}
_START_LIMIT_SECONDS: Final = 20
_KEEPER: Final = Path(__file__).with_name("keeper.py")


@contextmanager
def servers(wanted: set[str]) -> Iterator[Addresses]:
    """Start PostgreSQL and, if they are wanted and installed, Redis and NATS; yields where they are."""
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedServer(durable=True, settings=POSTGRES_SETTINGS)).url()
        redis = stack.enter_context(_redis()) if "redis" in wanted and shutil.which("redis-server") else None
        nats = stack.enter_context(_nats()) if "nats" in wanted and shutil.which("nats-server") else None
        yield Addresses(postgres, redis, nats)


@contextmanager
def _redis() -> Iterator[str]:
    # On a unix socket like PostgreSQL, so that no library pays for another transport; otherwise its defaults.
    command = ["redis-server", "--port", "0", "--unixsocket", "{directory}/redis.sock", "--dir", "{directory}"]
    with _kept(command) as directory:
        path = directory / "redis.sock"
        _wait_until_reachable("redis-server", socket.AF_UNIX, str(path), directory)
        yield f"unix://{path}"


@contextmanager
def _nats() -> Iterator[str]:
    port = _free_port()
    with _kept(["nats-server", "--addr", "127.0.0.1", "--port", str(port)]) as directory:
        _wait_until_reachable("nats-server", socket.AF_INET, ("127.0.0.1", port), directory)
        yield f"nats://127.0.0.1:{port}"


@contextmanager
def _kept(command: list[str]) -> Iterator[Path]:
    keeper = subprocess.Popen(
        [sys.executable, "-IS", _KEEPER, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # out of reach of the terminal's Ctrl-C
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        yield Path(keeper.stdout.readline().strip())
    finally:
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()


def _wait_until_reachable(
    name: str, family: socket.AddressFamily, address: str | tuple[str, int], directory: Path
) -> None:
    deadline = time.monotonic() + _START_LIMIT_SECONDS
    while time.monotonic() < deadline:
        with socket.socket(family) as probe, suppress(OSError):
            probe.connect(address)
            return
        time.sleep(0.02)
    raise RuntimeError(f"{name} did not start; it wrote:\n{(directory / 'log').read_text(errors='replace')[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
