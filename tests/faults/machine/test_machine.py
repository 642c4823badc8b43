"""Whatever is done to layers, and to what is between them and their database, every promise is kept.

`PGCHANNELS_MACHINE_EXAMPLES=2000 pytest tests/faults/machine -n 0` runs longer, with other examples each time, and with
slow links, which take too long for every run.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, Final, Literal

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from tests.faults.machine.groups import GROUPS, Seat, Visit
from tests.faults.machine.senders import HASTY, LARGE, QUEUE, Burst
from tests.faults.machine.trace import Trace, step_name
from tests.faults.machine.world import BEHIND, BESIDE, CROWD_BEHIND, CROWD_BESIDE, SEATS, STANDING, World
from tests.support.proxy import Direction
from tests.support.waiting import until

LIMIT_SECONDS: Final = 150  # of a step: several limits of pgchannels, 30 seconds each, may follow each other
TEMPLATE: Final = "template_of_the_machine"
EXAMPLES_VARIABLE: Final = "PGCHANNELS_MACHINE_EXAMPLES"
SETTINGS: Final = {"recovery_init_sync_method": "syncfs"}  # a crash takes less time than with a flush of each file
EXAMPLES: Final = 10
STEPS: Final = 25

senders = st.sampled_from([BESIDE, BEHIND, HASTY])
owners = st.sampled_from([BEHIND, BESIDE])
topics = st.sampled_from(["room", "news"])
targets = st.sampled_from(["room", "news", QUEUE, BEHIND, BESIDE])  # a layer's name stands for its channel
everybody = st.sampled_from([BESIDE, BEHIND, HASTY, CROWD_BEHIND, CROWD_BESIDE])
crowds = st.sampled_from([CROWD_BEHIND, CROWD_BESIDE])
groups = st.sampled_from(GROUPS)
seats = st.sampled_from(SEATS)
places = st.sampled_from([*GROUPS, *map(str, SEATS)])  # a seat's name stands for the channel in it
senders_to_groups = st.sampled_from([BESIDE, BEHIND, CROWD_BEHIND, CROWD_BESIDE])
rounds = st.sampled_from([1, 5, 20])
calls = st.sampled_from([1, 2, 3])
counts = st.sampled_from([1, 1, 2, 3, 12])
sizes = st.sampled_from([0, LARGE])
bursts = st.lists(st.builds(Burst, senders, targets, counts, sizes), min_size=1, max_size=4)
visits = st.lists(
    st.builds(Visit, crowds, senders_to_groups, groups, seats, st.sampled_from([1, 1, 2]), sizes, st.booleans()),
    min_size=1,
    max_size=6,
)
group_bursts = st.lists(st.builds(Burst, everybody, places, counts, sizes), min_size=1, max_size=4)
turns = st.integers(0, 8)
turns_after_sending = st.integers(0, 20)  # a message comes about then
traffic = st.integers(5, 40)
policies = st.sampled_from(["keep", "keep", "keep", "drop_newest", "drop_oldest", "fail"])
directions = st.sampled_from([("to_client",), ("to_server",), ("to_server", "to_client")])

Fault = Callable[[World], Coroutine[Any, Any, None]]
FAULTS: Final[list[Fault]] = [World.cut, World.cut, World.restart, World.crash]


class Machine(RuleBasedStateMachine):
    """One example: a fresh database, layers, receivers, and what is done to them.

    What is drawn depends on nothing that happens: after a step that failed the others are drawn all the same, and not
    taken. A failure that depends on timing would otherwise be told as a defect of this machine, and hidden by it.
    """

    server: EmbeddedServer

    receivers: Bundle[int] = Bundle("receivers")  # their numbers in the world

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.name = f"machine_{secrets.token_hex(4)}"
        self.failure: BaseException | None = None
        self.receivers_drawn = 0
        self.runner.run(_execute(self.server.url(), f"CREATE DATABASE {self.name} TEMPLATE {TEMPLATE}"))
        self.world = self.runner.run(_new_world(self.server, self.server.url(self.name)))
        self.trace = Trace(self.world.model)

    @initialize(target=receivers)
    def open(self) -> MultipleResults[int]:
        self.run(lambda: self.world.open())
        return multiple(*self.new_receivers(sum(STANDING.values())))

    @rule(bursts=bursts)
    def send(self, bursts: list[Burst]) -> None:
        self.run(lambda: self.world.send(self.addressed(bursts), turns=None))

    @rule(bursts=bursts, turns=turns)
    def begin_to_send(self, bursts: list[Burst], turns: int) -> None:
        self.run(lambda: self.world.send(self.addressed(bursts), turns=turns))

    @rule(bursts=group_bursts)
    def send_to_groups(self, bursts: list[Burst]) -> None:
        self.run(lambda: self.world.send(self.addressed(bursts), turns=None))

    @rule(by=crowds, group=groups, seat=seats, is_addition=st.sampled_from([True, True, False]))
    def change_membership(self, by: str, group: str, seat: Seat, is_addition: bool) -> None:
        self.run(lambda: self.world.change_membership(by, group, seat, is_addition=is_addition))

    @rule(visits=visits, rounds=rounds, is_cut=st.booleans())
    def visit(self, visits: list[Visit], rounds: int, is_cut: bool) -> None:
        self.run(lambda: self.world.visit(visits, rounds=rounds, is_cut=is_cut))

    @rule(by=crowds, bursts=st.tuples(bursts, group_bursts), turns=st.integers(0, 60))
    def flush_amid_traffic(self, by: str, bursts: tuple[list[Burst], list[Burst]], turns: int) -> None:
        sent = [burst for part in bursts for burst in part]
        self.run(lambda: self.world.flush_amid_traffic(by, self.addressed(sent), turns=turns))

    @rule(target=receivers, owner=owners, topic=topics, policy=policies)
    def subscribe(self, owner: str, topic: str, policy: str) -> int:
        self.run(lambda: self.world.subscribe(owner, topic, since=None, when_full=policy))
        return self.new_receivers(1)[0]

    @rule(target=receivers, owner=owners, topic=topics, policy=policies, number=st.integers(0, 10), calls=calls)
    def subscribe_since(self, owner: str, topic: str, policy: str, number: int, calls: int) -> int:
        known = self.world.model.stored(topic)
        since = known[-1 - number % len(known)].position if known else None
        self.run(lambda: self.world.subscribe(owner, topic, since=since, when_full=policy, calls=calls))
        return self.new_receivers(1)[0]

    @rule(receiver=receivers, count=counts, calls=calls)
    def receive(self, receiver: int, count: int, calls: int) -> None:
        self.run(lambda: self.world.receive(self.world.receivers[receiver], count=count, calls=calls))

    @rule(count=counts)
    def receive_everywhere(self, count: int) -> None:
        self.run(lambda: self.world.receive_everywhere(count=count))

    @rule(receiver=receivers, turns=turns)
    def receive_and_cancel(self, receiver: int, turns: int) -> None:
        self.run(lambda: self.world.cancel(self.world.receivers[receiver], turns=turns))

    @rule(receiver=receivers, sender=owners, turns=turns_after_sending, calls=calls)
    def send_and_cancel(self, receiver: int, sender: str, turns: int, calls: int) -> None:
        self.run(lambda: self.world.send_and_cancel(self.world.receivers[receiver], sender, turns=turns, calls=calls))

    @rule(receiver=receivers, sender=owners, turns=turns_after_sending, calls=calls)
    def send_and_end(self, receiver: int, sender: str, turns: int, calls: int) -> None:
        self.run(lambda: self.world.send_and_end(self.world.receivers[receiver], sender, turns=turns, calls=calls))

    @rule(receiver=receivers)
    def end(self, receiver: int) -> None:
        self.run(lambda: self.world.end(self.world.receivers[receiver]))

    @rule(target=receivers, owner=everybody, is_cut=st.booleans())
    def reopen(self, owner: str, is_cut: bool) -> MultipleResults[int]:
        self.run(lambda: self.world.reopen(owner, is_cut=is_cut))
        return multiple(*self.new_receivers(STANDING[owner]))

    @rule(directions=directions, new_connections=st.booleans())
    def freeze(self, directions: tuple[Direction, ...], new_connections: bool) -> None:
        self.run(lambda: self.world.freeze(*directions, new_connections=new_connections))

    @rule(held=st.sampled_from(["forward", "drop"]))
    def restore(self, held: Literal["forward", "drop"]) -> None:
        self.run(lambda: self.world.restore(held=held))

    @rule(fault=st.sampled_from(FAULTS))
    def suffer(self, fault: Fault) -> None:
        self.run(lambda: fault(self.world))

    @rule(topic=topics, count=traffic, size=sizes)
    def cut_amid_traffic(self, topic: str, count: int, size: int) -> None:
        self.run(lambda: self.world.cut_amid_traffic(Burst(BESIDE, topic, count, size)))

    @rule(topic=topics)
    def send_through_slow_links(self, topic: str) -> None:
        self.run(lambda: self.world.send_through_slow_links(topic))

    @rule(to=targets)
    def expire(self, to: str) -> None:
        self.run(lambda: self.world.expire(self.target(to)))

    def teardown(self) -> None:
        self.run(lambda: self.world.finish())
        self.run(lambda: self.verify())
        failure, self.failure = self.failure, None
        self.run(lambda: self.close())
        self.runner.close()
        if (failure := failure or self.failure) is not None:
            raise failure

    async def verify(self) -> None:
        """Every promise was kept."""
        self.world.verify()

    async def close(self) -> None:
        """Nothing of the example is left."""
        await self.world.close()
        assert asyncio.all_tasks() - {asyncio.current_task()} == set()
        await until(self.has_no_sessions)
        await _execute(self.server.url(), f"DROP DATABASE {self.name}")

    async def has_no_sessions(self) -> bool:
        """Whether every connection to the database of the example is gone."""
        query = f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = '{self.name}')"
        return bool(await _execute(self.server.url(), query))

    def target(self, name: str) -> str:
        """A topic, a group, the queue, or the channel of a layer or in a seat."""
        if name in {BEHIND, BESIDE}:
            return self.world.channel_of(name)
        return next((self.world.channel_in(seat) for seat in SEATS if name == str(seat)), name)

    def addressed(self, bursts: list[Burst]) -> list[Burst]:
        """The same with what the targets stand for."""
        return [replace(burst, target=self.target(burst.target)) for burst in bursts]

    def new_receivers(self, count: int) -> list[int]:
        """The numbers of receivers that the step before has made, or would have."""
        first, self.receivers_drawn = self.receivers_drawn, self.receivers_drawn + count
        return [*range(first, self.receivers_drawn)]

    def run(self, step: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Take one step, unless one has failed before; `teardown` raises the failure, with what led to it."""
        if self.failure is not None:
            return
        try:
            self.runner.run(self.traced(step()))
        except (Exception, asyncio.CancelledError) as error:
            error.add_note(f"{self.trace}")
            self.failure = error
            if not isinstance(error, Exception):  # Hypothesis takes no note of it
                self.failure = AssertionError("nobody cancelled")
                self.failure.__cause__ = error
        except KeyboardInterrupt as interruption:
            self.failure = interruption
            raise

    async def traced(self, work: Coroutine[Any, Any, object]) -> None:
        """Do some work in time, and note what came of it."""
        with self.trace.step(step_name(work)):
            try:
                async with asyncio.timeout(LIMIT_SECONDS):
                    await work
            except BaseException as error:
                error.add_note(self.world.explain())
                raise


async def _new_world(server: EmbeddedServer, url: str) -> World:
    return World(server, url, most_slow_links=1 if EXAMPLES_VARIABLE in os.environ else 0)


async def _execute(url: str, statement: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A durable server with a database to clone."""
    with EmbeddedServer(durable=True, settings=SETTINGS) as server:
        asyncio.run(_execute(server.url(), f"CREATE DATABASE {TEMPLATE}"))
        asyncio.run(migrations.upgrade(server.url(TEMPLATE)))
        yield server


def test_every_promise_is_kept_whatever_happens(server: EmbeddedServer) -> None:
    asked = os.environ.get(EXAMPLES_VARIABLE)
    run_state_machine_as_test(
        type("MachineOnThisServer", (Machine,), {"server": server}),
        settings=settings(
            max_examples=int(asked or EXAMPLES),
            stateful_step_count=STEPS,
            derandomize=not asked,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
