"""The libraries, each behind the same verbs."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from benchmarks.contestants.contestant import Addresses, Contestant


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a contestant is, what it is called, and what it needs."""

    title: str
    module: str
    class_name: str
    packages: tuple[str, ...]
    server: str = "postgres"


ENTRIES: Final = {
    "pgchannels": Entry(
        "pgchannels (Channels)", "pgchannels_channels", "PgchannelsChannels", ("pgchannels", "asyncpg", "channels")
    ),
    "pgchannels-api": Entry("pgchannels (plain API)", "pgchannels_api", "PgchannelsApi", ("pgchannels", "asyncpg")),
    "pgchannels-claim": Entry("pgchannels (claim)", "pgchannels_api", "PgchannelsClaim", ("pgchannels", "asyncpg")),
    "pgchannels-sealed": Entry(
        "pgchannels (encrypted)", "pgchannels_channels", "PgchannelsSealed", ("pgchannels", "cryptography")
    ),
    "bare": Entry("bare asyncpg, our SQL", "bare", "Bare", ("asyncpg",)),
    "redis-pubsub": Entry(
        "channels_redis pub/sub", "redis_layers", "RedisPubSub", ("channels_redis", "redis", "channels"), "redis"
    ),
    "redis-core": Entry(
        "channels_redis core", "redis_layers", "RedisCore", ("channels_redis", "redis", "channels"), "redis"
    ),
    "channels-postgres": Entry(
        "channels_postgres", "channels_postgres", "ChannelsPostgres", ("channels_postgres", "psycopg", "channels")
    ),
    "channels-nats": Entry("channels-nats", "channels_nats", "ChannelsNats", ("channels_nats", "nats-py"), "nats"),
    "in-memory": Entry("Channels in memory", "in_memory", "InMemory", ("channels",), "none"),
    "broadcaster": Entry("broadcaster (PostgreSQL)", "broadcaster", "Broadcaster", ("broadcaster", "asyncpg")),
    "litestar": Entry("Litestar (PostgreSQL)", "litestar", "Litestar", ("litestar", "asyncpg")),
}
WITH_OUR_SQL: Final = frozenset({"pgchannels", "pgchannels-api", "pgchannels-sealed", "bare"})


def load(name: str) -> type[Contestant]:
    """Import a contestant and its library."""
    entry = ENTRIES[name]
    contestant: type[Contestant] = getattr(import_module(f"benchmarks.contestants.{entry.module}"), entry.class_name)
    return contestant


def make(name: str, addresses: Addresses, *, capacity: int) -> Contestant:
    """A contestant, not yet open."""
    return load(name)(addresses, capacity=capacity)


def missing(name: str, addresses: Addresses) -> str | None:
    """Why a contestant cannot take part on this machine."""
    entry = ENTRIES[name]
    if entry.server in ("redis", "nats") and getattr(addresses, entry.server) is None:
        return f"no {entry.server}-server on this machine"
    absent = [package for package in entry.packages if find_spec(_MODULES.get(package, package)) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


__all__ = ["ENTRIES", "Addresses", "Contestant", "load", "make", "missing"]

_MODULES: Final = {"nats-py": "nats"}
