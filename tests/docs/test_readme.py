"""Every snippet of the README runs."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from pgchannels import MessageLayer
from pgchannels.codec import Codec
from tests.waiting import within

from .snippets import PLACEHOLDER, first_column, snippet

README = "README.md"


def test_upgrade_command(empty_database_url: str) -> None:
    command = snippet(README, "pgchannels upgrade", "sh").replace(PLACEHOLDER, empty_database_url).split()
    command[:1] = [sys.executable, "-m", "pgchannels"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_plain_script(database_url: str) -> None:
    script = snippet(README, "asyncio.run(main())").replace(PLACEHOLDER, database_url)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.splitlines() == ["rain {'score': [1, 0]}", "['rain']", "b'direct'", "{'id': 7}"]


def test_django_settings() -> None:
    settings: dict[str, Any] = {}
    exec(snippet(README, "CHANNEL_LAYERS"), settings)
    assert settings["CHANNEL_LAYERS"]["default"]["CONFIG"] == {"database": "default"}


async def test_django_message_without_an_event_loop(database_url: str, layer: MessageLayer) -> None:
    program = f"""
from django.conf import settings
settings.configure(CHANNEL_LAYERS={{"default": {{
    "BACKEND": "pgchannels.django.PostgresChannelLayer", "CONFIG": {{"url": {database_url!r}}}}}}})
{snippet(README, "sync.group_send")}"""
    async with layer.subscribe("room") as subscription:
        process = await asyncio.create_subprocess_exec(sys.executable, "-W", "error", "-c", program)
        assert await within(process.wait()) == 0
        assert (await within(anext(subscription))).payload == {"type": "chat.message", "text": "hello"}


def test_format_of_ones_own() -> None:
    exec(snippet(README, "registry.register_serializer"), {})
    codec = Codec(serializer_format="pickled")
    assert codec.decode(codec.encode({1: 1j}, bound_to="")) == {1: 1j}


@pytest.mark.parametrize("option", first_column(README))
def test_every_option_in_the_table_exists(option: str) -> None:
    assert option in (MessageLayer.__init__.__kwdefaults__ or {})
