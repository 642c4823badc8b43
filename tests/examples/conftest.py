"""A running chat for each of the two examples, with a database of its own."""

import asyncio
import re
import secrets
from collections.abc import Iterator

import asyncpg
import pytest

from tests.conftest import url_of_database
from tests.support.programs import chat, free_port

CHATS = {"fastapi_chat": "fastapi", "django_chat": "django"}


@pytest.fixture(scope="package", params=CHATS)
def example(request: pytest.FixtureRequest) -> str:
    """The folder of one of the two chats."""
    return str(request.param)


@pytest.fixture
def server(example: str) -> str:
    """What the processes of the example call themselves."""
    return CHATS[example]


@pytest.fixture(scope="package")
def port(example: str, server_url: str) -> Iterator[int]:
    """The port of the running chat."""
    name = f"pgchannels_example_{secrets.token_hex(4)}"
    asyncio.run(_execute(server_url, f'CREATE DATABASE "{name}"'))
    try:
        port = free_port()
        with chat(example, url_of_database(server_url, name), port):
            yield port
    finally:
        asyncio.run(_execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room that no other test enters."""
    return re.sub(r"\W", "_", request.node.name)[-40:]


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
