"""Processes of the tests, which are gone after them whatever happens."""

from asyncio.subprocess import Process

from tests.support.waiting import within


async def communicate(process: Process) -> tuple[bytes, bytes]:
    """Return what a process has written once it has ended; one that does not end is killed."""
    try:
        return await within(process.communicate())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
