"""Processes that must end well, and without a word."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.waiting import LIMIT_SECONDS

ROOT = Path(__file__).parents[2]


async def quiet_output(module: str, *arguments: str, limit_seconds: float = LIMIT_SECONDS) -> str:
    """What a Python process of the tests prints until it ends well, with all warnings on, and without any."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", module, *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, process_group=0
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), limit_seconds)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            await process.wait()
    # How long a callback takes on a busy machine is nobody's fault.
    complaints = [line for line in errors.decode().splitlines() if not line.startswith("Executing <")]
    assert not complaints, "\n".join(complaints)
    assert process.returncode == 0
    return output.decode()
