"""Who is connected to this process."""

import os
from collections.abc import Hashable
from typing import Any

SERVER = "fastapi"
PROCESS = os.getpid()
ANNOUNCE_EVERY_SECONDS = 3


class Presence:
    """The people of this process by topic, in order of arrival."""

    def __init__(self) -> None:
        self._people: dict[str, dict[Hashable, str]] = {}

    def join(self, topic: str, connection: Hashable, name: str) -> None:
        self._people.setdefault(topic, {})[connection] = name

    def leave(self, topic: str, connection: Hashable) -> None:
        del self._people[topic][connection]
        if not self._people[topic]:
            del self._people[topic]

    def speaks_for_process(self, topic: str, connection: Hashable) -> bool:
        """Whether the connection speaks for all of its topic: the one that has been there longest does."""
        return next(iter(self._people.get(topic, ())), None) is connection

    def announcement(self, topic: str) -> dict[str, Any]:
        """The message for the other processes and the pages."""
        people = list(self._people.get(topic, {}).values())
        return {"type": "chat.presence", "server": SERVER, "process": PROCESS, "people": people}
