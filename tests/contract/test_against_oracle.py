"""Whatever is done to the oracle and to one or two nodes of ours gives the same messages in the same order."""

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from channels.layers import InMemoryChannelLayer
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

from pgchannels.django import PostgresChannelLayer

from .layers import CAPACITY, Message

T = TypeVar("T")

# A message that is lost shows by waiting: shorter than elsewhere, for Hypothesis loses it again and again.
LIMIT_SECONDS = 10

nodes = st.integers(0, 1)
groups = st.sampled_from(["one", "two"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
sizes = st.sampled_from([0, 0, 0, 10_000])
messages = st.fixed_dictionaries({"type": st.just("value"), "value": values, "size": sizes})


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel in both worlds; of ours, one node alone receives from it."""

    name: str
    name_at_oracle: str
    receiving_node: int


def fill(message: Message) -> Message:
    """As large as it says; Hypothesis prints it without its filling."""
    return message | {"filling": "x" * message["size"]}


class SideBySide(RuleBasedStateMachine):
    """The oracle, and nodes of ours under a prefix of their own."""

    way: dict[str, Any]
    runner: asyncio.Runner
    node_count: int

    channels: Bundle[Channel] = Bundle("channels")

    def __init__(self) -> None:
        super().__init__()
        prefix = f"example-{secrets.token_hex(4)}"
        self.nodes = [
            PostgresChannelLayer(**self.way, prefix=prefix, capacity=CAPACITY) for _ in range(self.node_count)
        ]
        self.oracle = InMemoryChannelLayer(capacity=CAPACITY)
        self.known: list[Channel] = []
        self.differs = False

    @initialize(target=channels, node=nodes)
    def receive_from_every_kind(self, node: int) -> MultipleResults[Channel]:
        queue = self.know(Channel("work_queue", "work_queue", node))
        return multiple(queue, *[self.new_channel(number) for number in (0, 0, 1, 1)])

    def new_channel(self, node: int) -> Channel:
        name = self.run(self.node(node).new_channel())
        return self.know(Channel(name, self.run(self.oracle.new_channel()), node))

    @rule(channel=channels, node=nodes, message=messages)
    def send(self, channel: Channel, node: int, message: Message) -> None:
        message = fill(message)
        self.run(self.node(node).send(channel.name, message))
        self.run(self.oracle.send(channel.name_at_oracle, message))

    @rule(channel=channels)
    def receive_what_waits(self, channel: Channel) -> None:
        if self.waits(channel):
            self.compare_next(channel)

    @rule(channel=channels, node=nodes, message=messages)
    def receive_while_sending(self, channel: Channel, node: int, message: Message) -> None:
        message = fill(message)

        async def receive_and_send() -> Message:
            receiving = asyncio.create_task(self.node(channel.receiving_node).receive(channel.name))
            await asyncio.sleep(0)
            await self.node(node).send(channel.name, message)
            return await receiving

        self.run(self.oracle.send(channel.name_at_oracle, message))
        self.compare(channel, self.run(receive_and_send()))

    @rule(channel=channels, turns=st.integers(0, 6))
    def receive_and_cancel(self, channel: Channel, turns: int) -> None:
        async def receive_in_turns() -> Message | None:
            receiving = asyncio.create_task(self.node(channel.receiving_node).receive(channel.name))
            for _ in range(turns):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving])
            return None if receiving.cancelled() else receiving.result()

        received = self.run(receive_in_turns())
        if received is not None:
            self.compare(channel, received)

    @rule(group=groups, channel=channels)
    def group_add(self, group: str, channel: Channel) -> None:
        self.run(self.changing_node(channel).group_add(group, channel.name))
        self.run(self.oracle.group_add(group, channel.name_at_oracle))

    @rule(group=groups, channel=channels)
    def group_discard(self, group: str, channel: Channel) -> None:
        self.run(self.changing_node(channel).group_discard(group, channel.name))
        self.run(self.oracle.group_discard(group, channel.name_at_oracle))

    @rule(group=groups, node=nodes, message=messages)
    def group_send(self, group: str, node: int, message: Message) -> None:
        message = fill(message)
        self.run(self.node(node).group_send(group, message))
        self.run(self.oracle.group_send(group, message))

    @rule()
    def flush(self) -> None:
        # A node is empty when its own flush returns; the others follow.
        for node in self.nodes:
            self.run(node.flush())
        self.run(self.oracle.flush())

    def teardown(self) -> None:
        try:
            for channel in self.known:
                self.compare_to_the_end(channel)
        finally:
            self.runner.run(self.close())

    async def close(self) -> None:
        await asyncio.gather(*[node.close() for node in self.nodes])

    def compare_to_the_end(self, channel: Channel) -> None:
        if not self.differs:
            self.send(channel, node=1 - channel.receiving_node, message={"type": "last", "size": 0})
        while self.waits(channel) and not self.differs:
            self.compare_next(channel)

    def compare_next(self, channel: Channel) -> None:
        self.compare(channel, self.run(self.node(channel.receiving_node).receive(channel.name)))

    def compare(self, channel: Channel, ours: Message) -> None:
        expected = self.run(self.oracle.receive(channel.name_at_oracle)) if self.waits(channel) else {}
        # Compared as text, which tells 1 from True and 1.0, and without what fills it.
        self.differs = repr(ours) != repr(expected)
        assert repr(ours | {"filling": ""}) == repr(expected | {"filling": ""})
        assert not self.differs

    def node(self, number: int) -> PostgresChannelLayer:
        """Node 0 or 1, which may be the same."""
        return self.nodes[number % self.node_count]

    def changing_node(self, channel: Channel) -> PostgresChannelLayer:
        """Who adds and discards: the owner itself does it at once, not behind what the other node has just sent."""
        return self.node(1 - channel.receiving_node)

    def waits(self, channel: Channel) -> bool:
        """Whether a message waits at the oracle."""
        return channel.name_at_oracle in self.oracle.channels

    def know(self, channel: Channel) -> Channel:
        self.known.append(channel)
        return channel

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await work

        # When this raises, there is nothing left to compare.
        self.differs = True
        try:
            result = self.runner.run(limited())
        except asyncio.CancelledError as error:
            # Hypothesis takes no note of this one: it is no Exception.
            raise AssertionError("nobody cancelled") from error
        self.differs = False
        return result


@pytest.mark.parametrize("node_count", [1, 2])
def test_nodes_deliver_what_the_oracle_delivers(way: dict[str, Any], node_count: int) -> None:
    with asyncio.Runner() as runner:
        surroundings = {"way": way, "runner": runner, "node_count": node_count}
        run_state_machine_as_test(
            type("SideBySideInThisDatabase", (SideBySide,), surroundings),
            settings=settings(
                max_examples=60,
                stateful_step_count=30,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
