"""The mailbox against a model of it."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgchannels import Gap, GapReason, MessagesLost
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.mailbox import Connection, Item, Mailbox, WhenFull

CAPACITY = 3


def message(number: int) -> Arrival:
    """The message with this id, published at that microsecond."""
    return Arrival(number, number, "topic:asgi:room", None, b"payload")


def gone(number: int) -> Arrival:
    """A message that was gone before its row could be read."""
    return Arrival(number, number, "topic:asgi:room", None, None)


def read_all(mailbox: Mailbox) -> list[Item]:
    """Everything that is in the mailbox."""
    runner = asyncio.Runner()
    with runner:
        items = []
        while not mailbox.is_idle:
            items.append(runner.run(mailbox.get()))
        return items


@dataclass
class Told:
    """What a mailbox told others."""

    losses: list[Gap] = field(default_factory=list)
    fullness: list[bool] = field(default_factory=list)


def new_mailbox(when_full: WhenFull) -> tuple[Mailbox, Told]:
    """A small mailbox, and what it tells."""
    told = Told()
    return Mailbox(
        capacity=CAPACITY, when_full=when_full, on_lost=told.losses.append, on_full=told.fullness.append
    ), told


@given(st.lists(st.sampled_from(["put", "gone", "take", "crash", "back", "expire"])), st.sampled_from(WhenFull))
def test_every_message_is_received_once_in_order_or_counted_in_a_gap_at_its_place(
    steps: list[str], when_full: WhenFull
) -> None:
    mailbox, told = new_mailbox(when_full)
    seen: list[Item] = []
    sent = 0
    with asyncio.Runner() as runner:
        for step in steps:
            sent += step in {"put", "gone"}
            if step == "put":
                mailbox.put(message(sent))
            elif step == "gone":
                mailbox.put(gone(sent))
            elif step == "crash":
                mailbox.lose(Gap(GapReason.CRASH, None))
            elif step == "back":
                mailbox.tell(Connection.BACK)
            elif step == "expire":
                mailbox.expire(published_before=sent)
            elif not mailbox.is_idle:
                seen.append(runner.run(mailbox.get()))
    assert len(mailbox) <= CAPACITY
    if when_full is not WhenFull.FAIL:
        require_complete([*seen, *read_all(mailbox)], sent)
        assert mailbox.lost == sum(gap.count or 0 for gap in told.losses)
    assert all(one is not two for one, two in zip(told.fullness, told.fullness[1:], strict=False))


def require_complete(items: list[Item], sent: int) -> None:
    """Each number from 1 to `sent` is there, or counted by a gap where it is missing."""
    expected = 1
    for item in items:
        if isinstance(item, Arrival):
            assert item.id == expected
        expected += 1 if isinstance(item, Arrival) else (item.count or 0) if isinstance(item, Gap) else 0
    assert expected == sent + 1


def test_full_mailbox_that_fails_gives_what_it_has_then_says_how_many_more_came() -> None:
    mailbox, _ = new_mailbox(WhenFull.FAIL)
    for number in range(6):
        mailbox.put(message(number))
    with asyncio.Runner() as runner:
        assert [runner.run(mailbox.get()) for _ in range(CAPACITY)] == [message(number) for number in range(CAPACITY)]
        with pytest.raises(MessagesLost, match="3 messages were lost") as lost:
            runner.run(mailbox.get())
    assert lost.value.gap == Gap(GapReason.CAPACITY, 3)


def test_news_are_kept_beyond_the_capacity_and_are_bounded() -> None:
    mailbox, _ = new_mailbox(WhenFull.DROP_NEWEST)
    for number in range(10_000):
        mailbox.put(message(number))
        mailbox.tell(Connection.LOST if number % 2 else Connection.BACK)
        mailbox.lose(Gap(GapReason.CRASH, None))
    assert len(read_all(mailbox)) < 100


def test_messages_on_their_way_to_a_full_channel_have_room_beyond_the_capacity() -> None:
    mailbox, told = new_mailbox(WhenFull.DROP_NEWEST)
    for number in range(CAPACITY + 2):
        mailbox.put(message(number), allowance=2)
    assert told.losses == []
    assert told.fullness == [True]
    mailbox.put(message(CAPACITY + 2), allowance=2)
    assert told.losses == [Gap(GapReason.CAPACITY, 1)]
