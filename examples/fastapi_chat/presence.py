"""Who is connected to this process."""

import os
from collections.abc import Hashable
from typing import Any

SERVER = "fastapi"
PROCESS = os.getpid()
ANNOUNCE_EVERY_SECONDS = 3


class Presence:
    """The people of this process by topic, in the order in which they came."""

    def __init__(self) -> None:
        self._people: dict[str, dict[Hashable, str]] = {}

    def join(self, topic: str, connection: Hashable, name: str) -> None:
        self._people.setdefault(topic, {})[connection] = name

    def leave(self, topic: str, connection: Hashable) -> None:
        del self._people[topic][connection]
        if not self._people[topic]:
            del self._people[topic]

    def speaks_for_process(self, topic: str, connection: Hashable) -> bool:
        """Whether the connection is the one of its topic that speaks for all of them: it has been there longest."""
        return next(iter(self._people.get(topic, ())), None) is connection

    def announcement(self, topic: str) -> dict[str, Any]:
        """What the other processes and the pages are told."""
        people = list(self._people.get(topic, {}).values())
        return {"type": "chat.presence", "server": SERVER, "process": PROCESS, "people": people}
