"""On what a run was made: versions and settings."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import asyncpg

from benchmarks.contestants import ENTRIES, Addresses
from benchmarks.rounds import CAPACITY

_POSTGRES_SETTINGS: Final = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_connections",
)


async def describe(addresses: Addresses, contestants: set[str]) -> dict[str, Any]:
    """Versions of everything that takes part, and what one must know of its settings."""
    packages = sorted({package for name in contestants for package in ENTRIES[name].packages} | {"msgpack"})
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {package: found for package in packages if (found := _version(package))},
        "PostgreSQL": await _postgres(addresses.postgres),
        "Redis": _redis(addresses),
        "NATS": _nats(addresses),
        "capacity": f"{CAPACITY:,} messages for every library that has such a setting; otherwise each one's defaults",
    }


async def _postgres(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        settings = [f"{name}={await connection.fetchval(f'SHOW {name}')}" for name in _POSTGRES_SETTINGS]
        number = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    return f"{number} on a unix socket, {', '.join(settings)}"


def _redis(addresses: Addresses) -> str:
    if addresses.redis is None:
        return "not there, or not wanted"
    return f"{_program('redis-server')} on a unix socket, its defaults: no fsync, snapshots now and then"


def _nats(addresses: Addresses) -> str:
    if addresses.nats is None:
        return "not there, or not wanted"
    return f"{_program('nats-server')} on TCP, its defaults: nothing is stored"


def _program(name: str) -> str:
    told = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", told)
    return found[0] if found else told.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
