"""The channels of a node against what several who receive from them may expect, one step of the loop at a time."""

import asyncio
from functools import partial
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgchannels import Gap, GapReason, LayerClosed
from pgchannels.errors import ChannelFull
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.channels import Channels
from pgchannels.receiving.losses import Losses
from pgchannels.receiving.mailbox import Item
from pgchannels.receiving.router import Router
from tests.support.waiting import steps, within
from tests.unit.receivers import Receivers

CAPACITY: Final = 3
PREFIX: Final = "specific.node!"
CHANNELS: Final = (f"{PREFIX}one", f"{PREFIX}two")
TOPIC: Final = "topic:asgi:room"


def sent_to(channel: str, number: int) -> Arrival:
    """The message with this id, published at that microsecond, sent to a channel."""
    return Arrival(number, number, "node:asgi:node", channel, b"payload")


def published(number: int) -> Arrival:
    """The message with this id, published at that microsecond, to a topic."""
    return Arrival(number, number, TOPIC, None, b"payload")


class Played:
    """Channels of a node, what was sent to them, and who receives from them."""

    def __init__(self) -> None:
        self.losses, self.router = Losses(), Router()
        self.fullness: dict[str, bool] = {}
        self.expired_until = 0
        self.channels = Channels(
            self.router,
            self.losses,
            lambda _: CAPACITY,
            has_expired=lambda arrival: arrival.published_microseconds < self.expired_until,
            note_full=self.fullness.__setitem__,
        )
        self.direct = {channel: Receivers(partial(self._receive, channel)) for channel in CHANNELS}
        self.by_prefix = Receivers(self._receive_any)
        self.places: list[tuple[str, int]] = []  # in which channel each message was received
        self.last_id = self.delivered = self.cleared = 0

    @property
    def received(self) -> list[int]:
        """The messages that were received, whichever way."""
        return [number for receivers in (*self.direct.values(), self.by_prefix) for number in receivers.ids]

    @property
    def mailboxes(self) -> "dict[str, int]":
        """How many messages are in each."""
        return {channel: len(mailbox) for channel, mailbox in self.channels._mailboxes.items()}

    async def play(self, actions: list[tuple[str, int, bool]]) -> None:
        """Do all this, some of it between the steps of two receivers that were woken together; then check."""
        for action, number, is_soon in actions:
            if action == "step":
                await asyncio.sleep(0)
            elif is_soon:
                asyncio.get_running_loop().call_soon(self.act, action, number)
            else:
                self.act(action, number)
        await self.settle()
        self.require_nobody_deaf()
        await self.require_closable()
        self.require_balance()

    def act(self, action: str, number: int) -> None:
        """One thing that happens to a channel or to a receiver."""
        channel, other = CHANNELS[number % 2], CHANNELS[1 - number % 2]
        self.last_id += 1
        match action:
            case "send":
                self.delivered += 1
                self.channels.accept(channel, sent_to(channel, self.last_id))
            case "publish":
                self._publish()
            case "receive":
                self.direct[channel].start()
            case "receive any":
                self.by_prefix.start()
            case "cancel":
                self.direct[channel].cancel(number)
            case "cancel any":
                self.by_prefix.cancel(number)
            case "join":
                self.channels.join(TOPIC, channel, after=0, obeyed_until=0)
            case "leave":
                self.channels.leave(TOPIC, channel)
            case "leave all":
                for _ in self.channels.look_after(joined_before=asyncio.get_running_loop().time() + 1):
                    pass
            case "flush":
                self.cleared += sum(self.mailboxes.values())
                self.channels.clear()
            case "expire":
                self.expired_until = max(self.expired_until, self.last_id - number)
                for _ in self.channels.look_after():
                    pass
            case "age":
                self.expired_until = max(self.expired_until, self.last_id - number)
            case "crash":
                self.channels.lose(Gap(GapReason.CRASH, None))
            case "place":
                self._keep_a_place(other)

    async def settle(self) -> None:
        """Let everything happen that is under way."""
        for receivers in (*self.direct.values(), self.by_prefix):
            await receivers.settle()

    def require_nobody_deaf(self) -> None:
        """Whoever still waits does so because there is nothing, and what nobody needs is forgotten."""
        for channel, receivers in self.direct.items():
            mailbox = self.channels._mailboxes.get(channel)
            assert not receivers.waiting or (mailbox is not None and not mailbox._items)
        assert not self.by_prefix.waiting or not any(mailbox._items for mailbox in self.channels._mailboxes.values())
        assert bool(self.channels._lines) is bool(self.by_prefix.waiting)

    async def require_closable(self) -> None:
        """Closing ends every wait."""
        self.channels.close(LayerClosed("closed"))
        await self.by_prefix.require_end(LayerClosed)
        for receivers in self.direct.values():
            await receivers.require_end(LayerClosed)

    def require_balance(self) -> None:
        """Each message was received once, in the order of its channel, or it is known where it went."""
        assert len(self.places) == len(set(self.places))
        for receivers in (*self.direct.values(), self.by_prefix):
            numbers = [number for number, _ in receivers.received]
            assert numbers == sorted(numbers)
        left = sum(self.mailboxes.values())
        assert len(self.received) + self.cleared + self.losses.messages + left == self.delivered
        self.channels.clear()
        assert not any(room.taken for room in self.channels._rooms.values())
        assert not any(self.fullness.values())

    def _publish(self) -> None:
        self.delivered += sum(TOPIC in topics for topics in self.channels._topics.values())
        self.router.route(published(self.last_id))

    def _keep_a_place(self, channel: str) -> None:
        try:
            with self.channels.place_in(channel):
                self.delivered += 1
                self.channels.accept(channel, sent_to(channel, self.last_id))
        except ChannelFull:
            assert sum(self.mailboxes.values()) >= CAPACITY

    def _note(self, channel: str, item: Item) -> None:
        if isinstance(item, Arrival):
            self.places.append((channel, item.id))

    async def _receive(self, channel: str) -> Item:
        item = await self.channels.receive(channel)
        self._note(channel, item)
        return item

    async def _receive_any(self) -> Item:
        channel, item = await self.channels.receive_any(PREFIX)
        assert channel in CHANNELS
        self._note(channel, item)
        return item


ACTIONS = (
    *("send", "send", "send", "publish", "receive", "receive", "receive any", "receive any", "cancel", "cancel any"),
    *("join", "leave", "leave all", "flush", "expire", "age", "crash", "place", "step", "step", "step"),
)


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3), st.booleans())))
@example([("publish", 0, True), ("receive", 0, False), ("receive", 1, False), ("join", 0, False), ("join", 1, False)])
def test_whoever_receives_from_channels_is_never_deaf_and_nothing_is_lost_or_doubled(
    actions: list[tuple[str, int, bool]],
) -> None:
    async def play() -> None:
        await Played().play(actions)

    asyncio.run(play())


@pytest.mark.parametrize("forget", ["flush", "expire", "leave all"])
async def test_receiver_that_is_woken_when_its_channel_is_emptied_still_receives(forget: str) -> None:
    played = Played()
    played.act("join", 0)
    played.act("receive", 0)
    await steps(1)
    played.act("send", 0)
    played.channels.clear()
    played.act(forget, 0)
    await steps(2)
    played.act("send", 0)
    await within(asyncio.wait(played.direct[CHANNELS[0]].tasks))
    assert played.received == [played.last_id]


async def test_message_that_may_be_for_a_receiver_of_its_channel_goes_to_one_by_the_prefix_when_that_is_cancelled() -> (
    None
):
    played = Played()
    played.act("receive", 0)
    played.act("receive any", 0)
    await steps(1)
    played.act("send", 0)
    played.act("cancel", 0)
    await within(asyncio.wait(played.by_prefix.tasks))
    assert len(played.received) == played.delivered == 1


async def test_newcomer_by_a_prefix_does_not_overtake_a_receiver_of_the_channel_itself() -> None:
    played = Played()
    played.act("receive", 0)
    await steps(1)
    played.act("receive any", 0)  # whose turn in the loop comes first
    played.act("send", 0)
    await steps(3)
    assert played.direct[CHANNELS[0]].received
    assert not played.by_prefix.received


async def test_channel_is_forgotten_when_its_last_message_was_received_by_a_prefix() -> None:
    played = Played()
    played.act("send", 0)
    played.act("receive any", 0)
    await steps(2)
    assert played.received == [1]
    assert not played.mailboxes


async def test_receivers_by_a_prefix_are_served_in_the_order_of_their_waiting() -> None:
    played = Played()
    for _ in range(3):
        played.act("receive any", 0)
    await steps(1)
    for number in range(3):
        played.act("receive any", 0)  # a newcomer each time, whose turn in the loop comes first
        played.act("send", number)
        await steps(3)
    assert [number for number, _ in played.by_prefix.received] == [0, 1, 2]


async def test_receiver_that_comes_after_the_end_gets_an_error_of_its_own() -> None:
    played = Played()
    played.channels.close(LayerClosed("closed"))
    for _ in range(3):
        played.act("receive", 0)
        played.act("receive any", 0)
    await played.by_prefix.require_end(LayerClosed)
    await played.direct[CHANNELS[0]].require_end(LayerClosed)


async def test_message_that_has_expired_holds_no_place_of_any_channel_that_shares_it() -> None:
    played = Played()
    for _ in range(CAPACITY):
        played.act("send", 0)
    with pytest.raises(ChannelFull), played.channels.place_in(CHANNELS[1]):
        pass
    played.act("age", 1)  # the last one is still there
    with played.channels.place_in(CHANNELS[1]), played.channels.place_in(CHANNELS[1]):
        pass
    assert played.mailboxes == {CHANNELS[0]: 1}
    assert played.losses.messages == CAPACITY - 1
    assert played.fullness == {PREFIX: False, CHANNELS[0]: False}


async def test_channel_that_nobody_receives_from_leaves_its_topics_when_a_message_expires_unread(
    caplog: pytest.LogCaptureFixture,
) -> None:
    played = Played()
    played.act("join", 0)
    played.act("join", 1)
    played.act("receive", 1)
    await steps(1)
    played.act("publish", 0)
    await steps(2)
    played.act("receive", 1)
    await steps(1)
    played.act("expire", 9)
    assert TOPIC in played.channels._topics[CHANNELS[0]], "nothing has expired"
    played.act("expire", 0)
    assert list(played.channels._topics) == [CHANNELS[1]]
    assert played.channels.abandoned == 1
    assert played.losses.messages == 1
    assert sum("leaves its groups" in record.message for record in caplog.records) == 1
    played.act("join", 0)
    played.act("expire", 0)
    assert set(played.channels._topics) == set(CHANNELS), "it may come back"


async def test_channel_from_which_somebody_receives_by_its_prefix_stays_in_its_topics() -> None:
    played = Played()
    played.act("join", 0)
    played.act("publish", 0)
    played.act("age", -1)
    played.act("receive any", 0)
    await steps(1)
    played.act("expire", 0)
    assert TOPIC in played.channels._topics[CHANNELS[0]]


async def test_step_of_looking_after_channels_is_short_whatever_has_expired() -> None:
    played = Played()
    channels = Channels(
        played.router, played.losses, lambda _: 1_000, has_expired=lambda _: True, note_full=lambda *_: None
    )
    names = [f"{PREFIX}{number}" for number in range(200)]
    for number, name in enumerate(names):
        channels.join(TOPIC, name, after=0, obeyed_until=0)
        for one in range(500):
            channels._mailbox(name).put(published(number * 500 + one))
    lost, sizes = 0, []
    for _ in channels.look_after():
        sizes.append(played.losses.messages - lost)
        lost = played.losses.messages
    assert lost == 100_000
    assert max(sizes) <= 50
    assert channels.abandoned == 200
