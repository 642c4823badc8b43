"""Every snippet of the README and of the page for the start runs."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgchannels import MessageLayer
from tests.support.programs import run
from tests.support.snippets import PLACEHOLDER, commands, snippet, snippets, write_files
from tests.support.waiting import within

README, INSTALL, DJANGO = "README.md", "docs/install.md", "docs/how-to/django.md"


def test_upgrade_command(empty_database_url: str) -> None:
    command = snippet(README, "pgchannels upgrade", "sh").replace(PLACEHOLDER, empty_database_url).split()
    command[:1] = [sys.executable, "-m", "pgchannels"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_first_program(empty_database_url: str, tmp_path: Path) -> None:
    assert write_files(INSTALL, tmp_path) == set(snippets(INSTALL))
    upgrade, program = commands(INSTALL)
    environment = {"PGCHANNELS_URL": empty_database_url}
    run(upgrade, folder=tmp_path, environment=environment)
    assert run(program, folder=tmp_path, environment=environment) == snippet(INSTALL, "rain", "text")


@pytest.mark.parametrize("page", [README, DJANGO])
def test_django_settings(page: str) -> None:
    settings: dict[str, Any] = {}
    exec(snippet(page, "CHANNEL_LAYERS"), settings)
    assert settings["CHANNEL_LAYERS"]["default"]["CONFIG"] == {"database": "default"}


@pytest.mark.parametrize("page", [README, DJANGO])
async def test_django_message_without_an_event_loop(page: str, database_url: str, layer: MessageLayer) -> None:
    program = f"""
from django.conf import settings
settings.configure(CHANNEL_LAYERS={{"default": {{
    "BACKEND": "pgchannels.django.PostgresChannelLayer", "CONFIG": {{"url": {database_url!r}}}}}}})
{snippet(page, "sync.group_send")}"""
    async with layer.subscribe("room") as subscription:
        process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", program)
        assert await within(process.wait()) == 0
        assert (await within(anext(subscription))).payload == {"type": "chat.message", "text": "hello"}


async def test_message_with_the_transaction(
    owner_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    class Base(DeclarativeBase):
        pass

    class Order(Base):
        __tablename__ = "orders"
        id: Mapped[int] = mapped_column(primary_key=True)
        customer: Mapped[int]

    program: dict[str, Any] = {"AsyncSession": AsyncSession, "Order": Order, "layer": layer}
    exec(snippet(README, "place_order"), program)
    engine = create_async_engine(make_url(owner_url).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as creating:
        await creating.run_sync(Base.metadata.create_all)
    async with layer.subscribe("orders", "orders.8") as subscription:
        async with AsyncSession(engine) as session:
            await program["place_order"](session, 7)
        await connection.execute(snippet(README, "publish_row_changes", "sql"))
        await connection.execute("INSERT INTO orders (customer) VALUES (8)")
        messages = [await within(anext(subscription)) for _ in range(3)]
    assert [message.payload for message in messages[:2]] == [{"customer": 7}] * 2
    assert (messages[2].topic, messages[2].payload["new"]["customer"]) == ("orders.8", 8)
    await engine.dispose()
