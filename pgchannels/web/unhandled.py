"""What a client has sent and nobody has handled yet."""

import asyncio
from collections import deque
from typing import Final

from pgchannels.errors import LayerClosed
from pgchannels.web.stopping import when_server_stops

_MOST_MESSAGES: Final = 1000
_MOST_BYTES: Final = 1024 * 1024


class Unhandled:
    """At most 1,000 messages, of 1 MiB together unless it is one: whoever puts more waits for room."""

    def __init__(self) -> None:
        self._messages: deque[str | bytes] = deque()
        self._size = 0
        self._is_changed = asyncio.Event()
        self._is_stopping = False

    async def put(self, message: str | bytes) -> None:
        """Add a message.

        :raises LayerClosed: the server has been told to stop, and there is no room.
        """
        if not self._has_room(len(message)):
            with when_server_stops(self._stop):
                while not self._has_room(len(message)):
                    await self._change()
        self._messages.append(message)
        self._size += len(message)
        self._is_changed.set()

    async def get(self) -> str | bytes:
        """Wait for the next message and remove it."""
        while not self._messages:
            await self._change()
        message = self._messages.popleft()
        self._size -= len(message)
        self._is_changed.set()
        return message

    def _has_room(self, size: int) -> bool:
        if self._is_stopping:
            raise LayerClosed("the server stops")
        return not self._messages or (len(self._messages) < _MOST_MESSAGES and self._size + size <= _MOST_BYTES)

    async def _change(self) -> None:
        self._is_changed.clear()
        await self._is_changed.wait()

    def _stop(self) -> None:
        self._is_stopping = True
        self._is_changed.set()
