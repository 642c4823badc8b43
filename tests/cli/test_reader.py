"""Commands end quietly when nobody reads what they write, as after `| head -1`."""

import asyncio
import os
import subprocess
import sys

import pytest

from tests.support.waiting import LIMIT_SECONDS


def ended_without_reader(*command: str, unbuffered: bool) -> tuple[int, str]:
    """The status of a command, and its standard error; it writes to a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    if unbuffered:
        environment["PYTHONUNBUFFERED"] = "1"
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pgchannels", *command],
            env=environment,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    finally:
        os.close(writer)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("unbuffered", [False, True], ids=["at the end", "at each line"])
async def test_command_whose_reader_has_gone_ends_quietly(database_url: str, unbuffered: bool) -> None:
    command = ("status", "--url", database_url)
    assert await asyncio.to_thread(ended_without_reader, *command, unbuffered=unbuffered) == (141, "")


def test_help_whose_reader_has_gone_ends_quietly() -> None:
    assert ended_without_reader("--help", unbuffered=False) == (141, "")


async def test_failure_is_told_although_the_reader_has_gone(empty_database_url: str) -> None:
    status, told = await asyncio.to_thread(
        ended_without_reader, "status", "--url", empty_database_url, unbuffered=False
    )
    assert status == 1
    assert "pgchannels upgrade" in told
