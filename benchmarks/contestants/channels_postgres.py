"""channels_postgres."""

import asyncio
from typing import Any

import django
import psycopg
from django.conf import settings
from django.core.management import call_command

from benchmarks.contestants.channels_layer import ChannelInGroup, ChannelsLayer
from benchmarks.contestants.contestant import Member, Message

_ALIAS = "channels_postgres"  # the alias of Django's that the library insists on


class ChannelsPostgres(ChannelsLayer):
    """The library's defaults: messages expire after 60 seconds, a pool of four connections."""

    def make_layer(self) -> Any:
        database = _configure(self.addresses.postgres)
        from channels_postgres.core import PostgresChannelLayer  # needs Django's settings

        return PostgresChannelLayer(**database)

    async def join(self, group: str) -> Member:
        channel = await self.layer.new_channel()
        await self.layer.group_add(group, channel)
        # It begins to listen with the first `receive`, and loses what is sent until it does.
        first = asyncio.create_task(self.layer.receive(channel))
        while not (self.layer._channel_advisory_locks.get(channel) and self._is_listening()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return Listening(self.layer, group, channel, first)

    def _is_listening(self) -> bool:
        event = self.layer.listener_task_is_running
        return event is not None and event.is_set()

    async def close(self) -> None:
        from channels_postgres import db

        pool, db.connection_pool = db.connection_pool, None
        if pool is not None:
            await pool.close()


class Listening(ChannelInGroup):
    """A channel whose first `receive` is under way."""

    def __init__(self, layer: Any, group: str, channel: str, first: "asyncio.Task[Message]") -> None:
        super().__init__(layer, group, channel)
        self._first: asyncio.Task[Message] | None = first

    async def receive(self) -> Message:
        first, self._first = self._first, None
        return await (super().receive() if first is None else first)


def create_tables(url: str) -> None:
    """Run the migrations of the library, by Django."""
    _configure(url)
    call_command("migrate", "channels_postgres", database=_ALIAS, verbosity=0)


def _configure(url: str) -> dict[str, Any]:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    database: dict[str, Any] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        "USER": parts["user"],
        "HOST": parts["host"],
        "PORT": parts["port"],
        "TIME_ZONE": None,
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": False,
        "AUTOCOMMIT": True,
        "ATOMIC_REQUESTS": False,
        "OPTIONS": {},
    }
    if not settings.configured:
        settings.configure(
            DATABASES={"default": {}, _ALIAS: database},
            INSTALLED_APPS=["channels_postgres"],
            USE_TZ=True,
            DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        )
        django.setup()
    return database
