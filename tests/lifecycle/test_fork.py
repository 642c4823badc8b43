"""Processes that fork after they have used a layer."""

import asyncio
import sys
from pathlib import Path

import asyncpg

from pgchannels import MessageLayer
from tests.lifecycle.quiet import quiet_output
from tests.support.connections import has_connections
from tests.support.subprocesses import communicate
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
WORKERS = 4


async def test_workers_of_a_preloaded_application_use_its_layers(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    assert await quiet_output("tests.lifecycle.preloading", database_url, str(WORKERS)) == "done\n"
    await until(lambda: has_connections(connection, 0))
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 0


async def test_child_of_a_fork_that_python_was_not_told_of_sends(database_url: str) -> None:
    script = """
import ctypes, os, sys
from pgchannels import MessageLayer
layer = MessageLayer(sys.argv[1], send_timeout=5)
layer.sync.publish("room", "parent")
child = ctypes.PyDLL(None).fork()
layer.sync.publish("room", "parent again" if child else "child")
if not child:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
layer.sync.close()
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, database_url)
    await communicate(process)
    assert process.returncode == 0
    async with MessageLayer(database_url) as layer:
        history = [message.payload for message in await layer.history("room")]
    assert sorted(history) == ["child", "parent", "parent again"]
