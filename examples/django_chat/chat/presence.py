"""Who is connected to this process."""

import os
from collections.abc import Hashable
from typing import Any

SERVER = "django"
PROCESS = os.getpid()
ANNOUNCE_EVERY_SECONDS = 3


class Presence:
    """The people of this process by group, in order of arrival."""

    def __init__(self) -> None:
        self._people: dict[str, dict[Hashable, str]] = {}

    def join(self, group: str, connection: Hashable, name: str) -> None:
        self._people.setdefault(group, {})[connection] = name

    def leave(self, group: str, connection: Hashable) -> None:
        del self._people[group][connection]
        if not self._people[group]:
            del self._people[group]

    def speaks_for_process(self, group: str, connection: Hashable) -> bool:
        """Whether the connection speaks for all of its group: the one that has been there longest does."""
        return next(iter(self._people.get(group, ())), None) is connection

    def announcement(self, group: str) -> dict[str, Any]:
        """The message for the other processes and the pages."""
        people = list(self._people.get(group, {}).values())
        return {"type": "chat.presence", "server": SERVER, "process": PROCESS, "people": people}
