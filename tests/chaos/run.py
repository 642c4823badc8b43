"""One run: a server, a crew, faults, then peace until everybody has caught up, and the ledger."""

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgchannels import MessageLayer
from pgchannels.database import migrations
from tests.chaos.balance import balance
from tests.chaos.crew import JOBS, RECEIVING, TOPICS, Crew, Way, crew_at_work
from tests.chaos.drained import all_done
from tests.chaos.faults import Kind
from tests.chaos.journal import CHANNEL, QUEUE, TOPIC, Journal, read_journal
from tests.chaos.ledger import LAST, Account, Ledger
from tests.chaos.member import Role
from tests.chaos.scene import Scene, open_transaction
from tests.chaos.sender import Sender
from tests.chaos.servers import Servers
from tests.chaos.worker import RECEIVERS
from tests.support.durable import make_all_durable

_READY_SECONDS: Final = 30
_CATCH_UP_SECONDS: Final = 40
_AGAIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run showed: the ledger, and what went wrong besides."""

    ledger: Ledger
    troubles: list[str]

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return self.ledger.is_balanced and not self.troubles


async def run(
    servers: Servers,
    directory: Path,
    way: Way,
    *,
    seed: str,
    seconds: float,
    only: Collection[Kind],
    is_durable: bool = False,
) -> Outcome:
    """Let faults happen for some seconds; journals and errors of all processes are in the directory afterwards."""
    for url in servers.urls.values():
        await migrations.upgrade(url)
        if is_durable:
            await make_all_durable(url)
    began, path = time.monotonic(), directory / "run.journal"
    with closing(Journal(path, began=began)) as journal:
        async with AsyncExitStack() as stack:
            for url in servers.urls.values():
                await stack.enter_async_context(open_transaction(url))
            crew = await stack.enter_async_context(crew_at_work(seed, directory, way, began=began))
            async with asyncio.timeout(_READY_SECONDS):
                await crew.all_ready()
            await Scene(servers, crew, journal, began=began).rage(seed, seconds, only)
            print("no more faults: until all publishers are done and everybody has caught up", flush=True)
            late = await _settle(crew, servers.urls, way, journal)
    accounts = [*[member.account() for member in crew.members], Account(LAST, read_journal(path))]
    troubles = [trouble for member in crew.members for trouble in member.troubles()]
    return Outcome(balance(accounts, is_durable=is_durable), late + troubles)


async def _settle(crew: Crew, urls: Mapping[str, str], way: Way, journal: Journal) -> list[str]:
    """End the run in order; returns who could not follow."""
    await crew.finish(Role.PUBLISHER, Role.TRANSACTOR)
    async with MessageLayer(urls.get("", urls), pinned=way.options.get("pinned")) as layer:
        late = await _catch_up(crew, Sender(LAST, layer, journal))
        for url in urls.values():
            late += await all_done(url, crew.ended)
    await crew.finish(*RECEIVING, Role.CLAIMER)
    return late


async def _catch_up(crew: Crew, sender: Sender) -> list[str]:
    try:
        async with asyncio.timeout(_CATCH_UP_SECONDS):
            await crew.all_ready()
            await crew.rest()
            for _ in range(RECEIVERS * len(crew.living(Role.WORKER))):
                await sender.send_surely(QUEUE + JOBS)
            await _send_until_caught_up(crew, sender)
    except TimeoutError:
        late = [member for member in crew.living(*RECEIVING) if not member.has_caught_up.is_set()]
        return [f"{member.part.name} has not caught up" for member in late]
    return []


async def _send_until_caught_up(crew: Crew, sender: Sender) -> None:
    """Send last messages, again and again: a mailbox that is full for a moment may have dropped one of them."""
    channels = [CHANNEL + channel for channel in crew.channels(Role.SUBSCRIBER, Role.CONSUMER)]
    caught_up = asyncio.create_task(crew.all_caught_up())
    try:
        while not caught_up.done():
            for target in (*[TOPIC + topic for topic in TOPICS], *channels):
                await sender.send(target)
            await asyncio.wait([caught_up], timeout=_AGAIN_SECONDS)
    finally:
        caught_up.cancel()
