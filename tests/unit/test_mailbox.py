"""The mailbox against a model of it."""

import asyncio
import traceback
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgchannels import Gap, GapReason, LayerClosed, MessagesLost
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.mailbox import Item, ListenerState, Mailbox, WhenFull
from tests.support.waiting import steps, within
from tests.unit.receivers import Receivers

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
    expired_until: int = 0

    def has_expired(self, arrival: Arrival) -> bool:
        """Whether the time of a message is over."""
        return arrival.published_microseconds < self.expired_until


def new_mailbox(when_full: WhenFull) -> tuple[Mailbox, Told]:
    """A small mailbox, and what it tells."""
    told = Told()
    return Mailbox(
        capacity=CAPACITY,
        when_full=when_full,
        has_expired=told.has_expired,
        on_lost=told.losses.append,
        on_full=told.fullness.append,
    ), told


@given(st.lists(st.sampled_from(["put", "gone", "take", "crash", "back", "expire", "age"])), st.sampled_from(WhenFull))
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
                mailbox.tell(ListenerState.BACK)
            elif step == "expire":
                told.expired_until = sent
                mailbox.look_after(most=1)
            elif step == "age":
                told.expired_until = sent
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
        mailbox.tell(ListenerState.LOST if number % 2 else ListenerState.BACK)
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


ACTIONS = ["put", "put", "gone", "get", "get", "cancel", "clear", "crash", "back", "expire", "step", "step"]


@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 3), st.booleans())),
    st.sampled_from(WhenFull),
    st.booleans(),
)
@example(
    [("get", 0, False), ("get", 0, True), *[("put", 0, True)] * 4, ("get", 0, True)], WhenFull.FAIL, False
)  # the second one comes when the mailbox has just failed
def test_receivers_of_one_mailbox_get_each_message_once_in_the_order_of_their_waiting(
    actions: list[tuple[str, int, bool]], when_full: WhenFull, is_closed_at_once: bool
) -> None:
    asyncio.run(Sharing(when_full).play(actions, is_closed_at_once=is_closed_at_once))


class Sharing:
    """Several receivers of one mailbox, one loop step at a time."""

    def __init__(self, when_full: WhenFull) -> None:
        self.mailbox, self.told = new_mailbox(when_full)
        self.receivers = Receivers(self.mailbox.get)
        self.sent = 0
        self.cleared: list[int] = []
        self.is_closed = False

    async def play(self, actions: list[tuple[str, int, bool]], *, is_closed_at_once: bool) -> None:
        """Do all this, some of it between the steps of two receivers that were woken together; then check."""
        for action, number, is_soon in actions:
            if action == "step":
                await asyncio.sleep(0)
            elif is_soon:
                asyncio.get_running_loop().call_soon(self.act, action, number)
            else:
                self.act(action, number)
        if not is_closed_at_once:
            await self.receivers.settle()
            self.require_nobody_deaf()
        self.mailbox.close(LayerClosed("closed"))
        self.is_closed = True
        await self.receivers.require_end(MessagesLost if self.has_failed() else LayerClosed)
        self.require_balance()

    def act(self, action: str, number: int) -> None:
        """One thing that happens to the mailbox or to a receiver; what comes after the end is nobody's."""
        if self.is_closed and action in {"put", "gone"}:
            return
        self.sent += action in {"put", "gone"}
        match action:
            case "put":
                self.mailbox.put(message(self.sent))
            case "gone":
                self.mailbox.put(gone(self.sent))
            case "get":
                self.receivers.start()
            case "cancel":
                self.receivers.cancel(number)
            case "clear":
                self.cleared += [arrival.id for arrival in self.mailbox.clear()]
            case "crash":
                self.mailbox.lose(Gap(GapReason.CRASH, None))
            case "back":
                self.mailbox.tell(ListenerState.BACK)
            case "expire":
                self.told.expired_until = max(self.told.expired_until, self.sent - number)
                self.mailbox.look_after(most=1 + number)

    def has_failed(self) -> bool:
        """Whether it was full, and fails then."""
        return isinstance(self.mailbox._error, MessagesLost)

    def require_nobody_deaf(self) -> None:
        """Whoever still waits does so because there is nothing."""
        assert not self.receivers.waiting or not self.mailbox._items
        assert self.mailbox.is_idle is (not self.receivers.waiting and not self.mailbox._items)

    def require_balance(self) -> None:
        """Nobody was overtaken; each message was received once in its order, or it is known where it went."""
        numbers, ids = [number for number, _ in self.receivers.received], self.receivers.ids
        assert numbers == sorted(numbers)
        assert ids == sorted(set(ids))
        assert not set(ids) & set(self.cleared)
        assert len(ids) + len(self.cleared) + self.mailbox.lost + len(self.mailbox) == self.sent
        assert self.mailbox.lost == sum(gap.count or 0 for gap in self.told.losses)


async def test_receiver_that_is_woken_and_finds_its_message_removed_gets_the_next_one() -> None:
    mailbox, _ = new_mailbox(WhenFull.FAIL)
    receiving = asyncio.create_task(mailbox.get())
    await steps(1)
    mailbox.put(message(1))
    mailbox.clear()
    assert not mailbox.is_idle  # nobody may forget it
    await steps(2)
    mailbox.put(message(2))
    assert await within(receiving) == message(2)
    assert mailbox.is_idle


async def test_newcomer_does_not_overtake_a_receiver_that_is_woken_and_has_not_run() -> None:
    mailbox, _ = new_mailbox(WhenFull.FAIL)
    first = asyncio.create_task(mailbox.get())
    await steps(1)
    newcomer = asyncio.create_task(mailbox.get())  # whose turn in the loop comes before that of the first
    mailbox.put(message(1))
    assert await within(first) == message(1)
    mailbox.put(message(2))
    assert await within(newcomer) == message(2)


async def test_message_of_a_receiver_that_is_cancelled_when_woken_goes_to_the_next() -> None:
    mailbox, _ = new_mailbox(WhenFull.FAIL)
    waiting = [asyncio.create_task(mailbox.get()) for _ in range(3)]
    await steps(1)
    mailbox.put(message(1))
    waiting[0].cancel()
    await steps(2)
    assert [task.done() for task in waiting] == [True, True, False]
    assert await waiting[1] == message(1)
    mailbox.put(message(2))
    assert await within(waiting[2]) == message(2)


async def test_receiver_that_waits_again_before_another_one_runs_is_no_reason_to_be_deaf_at_the_end() -> None:
    mailbox, _ = new_mailbox(WhenFull.FAIL)
    waiting = [asyncio.create_task(mailbox.get()) for _ in range(2)]
    await steps(1)
    mailbox.put(message(1))  # the first is woken, …
    asyncio.get_running_loop().call_soon(mailbox.close, LayerClosed("closed"))  # … waits again before this, …
    mailbox.put(message(2))  # … and the second one runs between this and the end of the first
    mailbox.clear()
    for task in waiting:
        with pytest.raises(LayerClosed):
            await within(task)


@pytest.mark.parametrize("error", [None, LayerClosed("closed")])
async def test_loop_that_goes_on_after_the_end_gets_new_errors_and_lets_others_run(
    error: Exception | None,
) -> None:
    mailbox, _ = new_mailbox(WhenFull.FAIL)
    if error is not None:
        mailbox.close(error)
    for number in range(CAPACITY + 2):
        mailbox.put(message(number))
    mailbox.clear()
    others_ran, ticking = 0, True

    async def tick() -> None:
        nonlocal others_ran
        while ticking:
            others_ran += 1
            await asyncio.sleep(0)

    task, errors = asyncio.create_task(tick()), []
    for _ in range(100):
        with pytest.raises(MessagesLost if error is None else LayerClosed) as caught:
            await mailbox.get()
        errors.append(caught.value)
    ticking = False
    await task
    assert others_ran >= 100
    assert len(set(map(id, errors))) == 100
    assert len(traceback.extract_tb(errors[-1].__traceback__)) == len(traceback.extract_tb(errors[0].__traceback__))
    assert all(raised.gap == Gap(GapReason.CAPACITY, 2) for raised in errors if isinstance(raised, MessagesLost))


def test_gap_is_kept_however_many_news_wait() -> None:
    mailbox, told = new_mailbox(WhenFull.DROP_NEWEST)
    for number in range(1000):
        mailbox.tell(ListenerState.LOST if number % 2 else ListenerState.BACK)
    mailbox.lose(Gap(GapReason.CRASH, None))
    mailbox.put(gone(1))
    mailbox.put(gone(2))
    mailbox.lose(Gap(GapReason.CRASH, None))
    gaps = [item for item in read_all(mailbox) if isinstance(item, Gap)]
    assert gaps == [Gap(GapReason.CRASH, None), Gap(GapReason.EXPIRED, 2)]
    assert len(told.losses) == 4


async def test_receiver_that_waits_long_keeps_the_news_that_wake_it() -> None:
    mailbox, _ = new_mailbox(WhenFull.DROP_NEWEST)
    receiving = asyncio.create_task(mailbox.get())
    await steps(1)
    for _ in range(100):
        mailbox.look_after(most=1)
    mailbox.lose(Gap(GapReason.CRASH, None))
    mailbox.look_after(most=1)
    assert await within(receiving) == Gap(GapReason.CRASH, None)


def test_message_that_has_expired_is_not_taken_and_takes_no_place() -> None:
    mailbox, told = new_mailbox(WhenFull.FAIL)
    for number in range(1, CAPACITY + 1):
        mailbox.put(message(number))
    told.expired_until = 3
    mailbox.put(message(CAPACITY + 1))
    assert read_all(mailbox) == [Gap(GapReason.EXPIRED, 2), message(3), message(4)]
    mailbox.put(message(5))
    told.expired_until = 6
    assert read_all(mailbox) == [Gap(GapReason.EXPIRED, 1)]
    assert told.fullness == [True, False]


def test_messages_expire_in_one_gap_however_many_they_are_at_once() -> None:
    told = Told(expired_until=10_000)
    mailbox = Mailbox(
        capacity=10_000, when_full=WhenFull.FAIL, has_expired=told.has_expired, on_lost=told.losses.append
    )
    for number in range(10_000):
        mailbox.put(message(number))
    assert [mailbox.look_after(most=4_000) for _ in range(3)] == [True, True, False]
    assert told.losses == [Gap(GapReason.EXPIRED, 4_000), Gap(GapReason.EXPIRED, 4_000), Gap(GapReason.EXPIRED, 2_000)]
    assert read_all(mailbox) == [Gap(GapReason.EXPIRED, 10_000)]
