"""All processes of a run: each place has one at a time, behind a proxy of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pgchannels import Position
from tests.chaos.journal import Received
from tests.chaos.ledger import Ending
from tests.chaos.member import Member, Role
from tests.chaos.process import Part
from tests.chaos.proxies import Proxies
from tests.chaos.subscriber import WIDEST

TOPICS: Final = [f"room-{number}" for number in range(6)]
JOBS: Final = "jobs"
TASKS: Final = "tasks"
PLACES: Final = {
    f"{role}-{letter}": role
    for role in (Role.PUBLISHER, Role.TRANSACTOR, Role.SUBSCRIBER, Role.WORKER, Role.CLAIMER, Role.CONSUMER)
    for letter in ("a", "b")
}
RECEIVING: Final = (Role.SUBSCRIBER, Role.WORKER, Role.CONSUMER)
_OPTIONS: Final[dict[str, Any]] = {"expiry": 20, "heartbeat": 0.5}
# One publisher gives up soon, so that there are sends with an unknown outcome.
_SEND_TIMEOUTS: Final = {"publisher-a": 1.5}
_SEND_TIMEOUT: Final = 12


@dataclass(frozen=True, slots=True)
class Way:
    """How all processes reach the servers: by which URLs of each, by another one to listen, by which options."""

    urls: Mapping[str, Sequence[str]]
    listen_url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Paths:
    """Those of one place: through the proxies of the URLs and, if there is one to listen, through that of its own."""

    by_server: Mapping[str, Proxies]
    listening: Proxies | None

    def proxies(self) -> list[Proxies]:
        """All that there are."""
        return [*self.by_server.values(), *([] if self.listening is None else [self.listening])]

    def urls(self) -> dict[str, str]:
        """The URL of each server."""
        return {server: proxies.url for server, proxies in self.by_server.items()}

    def options(self) -> dict[str, Any]:
        """What the layer must know of them."""
        return {} if self.listening is None else {"listen_url": self.listening.url}


class Crew:
    """The living and the dead; successors of the dead bear the name of their place and the next number."""

    def __init__(
        self, seed: str, directory: Path, paths: Mapping[str, Paths], options: Mapping[str, Any], *, began: float
    ) -> None:
        self.paths = paths
        self._options = _OPTIONS | dict(options)
        self.members: list[Member] = []
        self._seed = seed
        self._directory = directory
        self._began = began
        self._living: dict[str, Member] = {}
        self._is_resting = False
        self._listening: set[asyncio.Task[None]] = set()

    def at(self, place: str) -> Member:
        """The process that is there now."""
        return self._living[place]

    def living(self, *roles: Role) -> list[Member]:
        """The processes in these roles that are there now."""
        return [member for member in self._living.values() if member.role in roles]

    async def start(self, place: str) -> None:
        """Start a process in a place; in that of a subscriber it goes on where the last one there was ended."""
        predecessor = self._living.get(place)
        name = f"{place}{1 + sum(member.part.name.startswith(place) for member in self.members)}"
        part = Part(
            name=name,
            urls=self.paths[place].urls(),
            journal=str(self._directory / f"{name}.journal"),
            began=self._began,
            seed=f"{self._seed} {name}",
            options=self._options
            | self.paths[place].options()
            | {"send_timeout": _SEND_TIMEOUTS.get(place, _SEND_TIMEOUT)},
            topics=TOPICS,
            queue=JOBS,
            claimed=TASKS,
            since=None if predecessor is None else _last_positions(predecessor),
        )
        member = self._living[place] = await Member.start(PLACES[place], part, self._directory)
        self.members.append(member)
        listening = asyncio.create_task(member.listen(on_ready=self._introduce), name=f"listen to {name}")
        self._listening.add(listening)
        self._introduce()

    async def all_ready(self) -> None:
        """Return when everybody is ready or has failed."""
        await asyncio.gather(*[member.reached(member.is_ready) for member in self._living.values()])

    async def all_caught_up(self) -> None:
        """Return when everybody who receives has got the last messages or has failed."""
        await asyncio.gather(*[member.reached(member.has_caught_up) for member in self.living(*RECEIVING)])

    def ended(self) -> list[int]:
        """The process IDs of those that have ended."""
        return [member.process.pid for member in self.members if not member.is_running]

    async def rest(self) -> None:
        """Return when nobody adds, sends and discards any more; only receives."""
        self._is_resting = True
        self._introduce()
        await asyncio.gather(*[member.reached(member.is_at_rest) for member in self.living(Role.CONSUMER)])

    def channels(self, *roles: Role) -> list[str]:
        """The channels of those in these roles that are there now."""
        return [channel for member in self.living(*roles) for channel in member.channels]

    async def replace(self, place: str, ending: Ending) -> None:
        """End the process in a place and start another one."""
        await self.at(place).end(ending)
        await self.start(place)

    async def finish(self, *roles: Role) -> None:
        """Tell all in these roles to finish, and wait until they have."""
        for member in self.living(*roles):
            member.finish()
        await asyncio.gather(*[member.wait() for member in self.living(*roles)])

    async def close(self) -> None:
        """Kill whoever is left."""
        await asyncio.gather(*[member.end(Ending.KILLED) for member in self.members if member.is_running])
        await asyncio.gather(*self._listening)

    def _introduce(self) -> None:
        for publisher in self.living(Role.PUBLISHER):
            publisher.order(self.channels(Role.SUBSCRIBER))
        for consumer in [consumer for consumer in self.living(Role.CONSUMER) if consumer.is_ready.is_set()]:
            consumer.order(self.channels(Role.CONSUMER) if not self._is_resting else [])


@asynccontextmanager
async def crew_at_work(seed: str, directory: Path, way: Way, *, began: float) -> AsyncIterator[Crew]:
    """A crew with somebody in every place; all are gone with the block."""
    async with AsyncExitStack() as stack:
        paths = {place: await _paths(stack, way) for place in PLACES}
        crew = Crew(seed, directory, paths, way.options, began=began)
        stack.push_async_callback(crew.close)
        for place in PLACES:
            await crew.start(place)
        yield crew


async def _paths(stack: AsyncExitStack, way: Way) -> Paths:
    by_server = {server: await stack.enter_async_context(Proxies(urls)) for server, urls in way.urls.items()}
    if way.listen_url is None:
        return Paths(by_server, None)
    return Paths(by_server, await stack.enter_async_context(Proxies([way.listen_url])))


def _last_positions(member: Member) -> dict[str, str] | None:
    """By target, the last position that a subscriber's widest subscription received; None if it lacks one."""
    latest: dict[str, Position] = {}
    for record in member.records():
        if isinstance(record, Received) and record.position is not None and record.receiver.startswith(WIDEST):
            latest[record.target] = max(record.position, latest.get(record.target, record.position))
    return {target: str(at) for target, at in latest.items()} if len(latest) == len(TOPICS) else None
