"""The page about acknowledged work: its worker runs, and its snippets do what the page says."""

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

from pgchannels import MessageLayer
from tests.support.programs import running
from tests.support.roads import Connection
from tests.support.snippets import snippet, write_files
from tests.support.waiting import until, within

PAGE: Final = "docs/how-to/acknowledged-work.md"


async def test_worker_does_what_it_can_and_the_rest_is_tried_again_from_the_dead_letters(
    tmp_path: Path, database_url: str, layer: MessageLayer, connection: Connection
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
        await until(partial(shows, connection, [("thumbnails", 0, 0), ("thumbnails.dead", 1, 0)]))
        await within(names["try_again"](layer))
        await asyncio.to_thread(program.line, "attempt 1: notes.txt is no photo")
        program.process.kill()


async def shows(connection: Connection, figures: list[tuple[str, int, int]]) -> bool:
    """Whether the query of the page returns these figures."""
    return sorted(tuple(row) for row in await connection.fetch(snippet(PAGE, "queue_status", "sql"))) == figures
