"""The FastAPI chat inside the test's own event loop, where its tasks can be counted."""

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.programs import EXAMPLES
from tests.support.waiting import until, within


@pytest.fixture
async def chat(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModuleType]:
    """The module of the example, its layer open."""
    monkeypatch.syspath_prepend(EXAMPLES / "fastapi_chat")
    monkeypatch.setenv("PGCHANNELS_URL", database_url)
    main = importlib.import_module("main")
    try:
        async with main.lifespan(main.app):
            yield main
    finally:
        for name in ("main", "orders", "presence"):
            sys.modules.pop(name, None)


class Page:
    """The other end of a websocket of the application."""

    def __init__(self) -> None:
        self.to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.from_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.to_server.put_nowait({"type": "websocket.connect"})

    def open(self, main: ModuleType) -> "asyncio.Task[None]":
        scope = {
            "type": "websocket",
            "path": "/ws/lobby",
            "raw_path": b"/ws/lobby",
            "query_string": b"name=Ada",
            "headers": [],
            "subprotocols": [],
        }
        return asyncio.create_task(main.app(scope, self.to_server.get, self.from_server.put))

    async def hears(self, type_: str) -> None:
        while True:
            frame = await within(self.from_server.get())
            if frame["type"] == "websocket.send" and json.loads(frame["text"])["type"] == type_:
                return

    def leave(self) -> None:
        self.to_server.put_nowait({"type": "websocket.disconnect", "code": 1001})


async def test_disconnecting_leaves_no_task_and_nobody_listed(chat: ModuleType) -> None:
    before = asyncio.all_tasks()
    page = Page()
    served = page.open(chat)
    await page.hears("chat.presence")
    assert len(asyncio.all_tasks()) > len(before)
    page.leave()
    await within(served)
    assert asyncio.all_tasks() == before
    assert chat.presence.announcement("chat.lobby")["people"] == []


async def test_page_that_leaves_during_its_greeting_leaves_no_task(chat: ModuleType) -> None:
    before = asyncio.all_tasks()
    page = Page()
    page.leave()  # already lies behind the connection itself when the server looks
    await within(page.open(chat))
    # What it was about to be greeted with is still being cancelled in the server, for a moment.
    await until(lambda: asyncio.sleep(0, asyncio.all_tasks() == before))
