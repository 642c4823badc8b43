"""The page about acknowledged work: its worker runs, and its snippets do what the page says."""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

from pgchannels import MessageLayer
from tests.support.programs import running
from tests.support.snippets import snippet, write_files
from tests.support.waiting import within

PAGE: Final = "docs/how-to/acknowledged-work.md"


async def test_worker_does_what_it_can_and_the_rest_is_tried_again_from_the_dead_letters(
    tmp_path: Path, database_url: str, layer: MessageLayer
) -> None:
    write_files(PAGE, tmp_path)
    names: dict[str, Any] = {"MessageLayer": MessageLayer}
    for name in ("try_again", "order"):
        exec(snippet(PAGE, f"async def {name}"), names)
    command = [sys.executable, "worker.py"]
    with running(command, folder=tmp_path, environment={"PGCHANNELS_URL": database_url}) as program:
        for photo in ("cat.jpg", "notes.txt", "dog.jpg"):
            await names["order"](layer, photo)
        await asyncio.to_thread(program.line, "made cat.jpg")
        for attempt in (1, 2, 3):
            await asyncio.to_thread(program.line, f"attempt {attempt}: notes.txt is no photo")
        await within(names["try_again"](layer))
        await asyncio.to_thread(program.line, "attempt 1: notes.txt is no photo")
        program.process.kill()
