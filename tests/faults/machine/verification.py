"""What must be true in the end of an example, whatever was done in it; `model` has the words."""

from collections.abc import Iterable

from pgchannels import Gap, GapReason, Position
from tests.faults.machine.memberships import Memberships
from tests.faults.machine.model import BEGINNING, Fate, Model, Reception, Send, position_of
from tests.faults.machine.senders import QUEUE


def verify_senders(model: Model) -> None:
    """What one sender has sent to one target stands in the order of its calls."""
    last: dict[tuple[str, str], Send] = {}
    for send in model.sends:
        if send.fate is Fate.SENT and send.position is not None:
            before = last.get((send.sender, send.target))
            assert before is None or position_of(before) < position_of(send), f"{send} overtook {before}"
            last[send.sender, send.target] = send


def verify_once(receptions: Iterable[Reception]) -> None:
    """Receivers that share their messages, or one alone, got each once, and nothing that was not sent to them."""
    received = [send for reception in receptions for send in reception.received]
    assert len(received) == len(set(received)), f"delivered twice: {received}"
    for reception in receptions:
        for send in reception.received:
            assert send.fate is not Fate.NOT_SENT, f"{reception.name} got {send}, which was not sent"
            is_for_it = send.target == reception.target or reception.is_member
            assert is_for_it, f"{reception.name} got {send}, which was for another"


def verify_in_order(reception: Reception) -> None:
    """A receiver got what it got in the order of positions."""
    known = [send for send in reception.received if send.position]
    assert known == sorted(known, key=position_of), f"{reception.name} got disorder: {known}"
    again = [send for send in known if reception.since is not None and position_of(send) <= reception.since]
    assert not again, f"{reception.name} had {again} before: {reception}"


def verify_flushes(model: Model) -> None:
    """Nothing that was sent before a flush began came to a channel or a consumer after it had returned."""
    for reception in model.receptions:
        if reception.target != QUEUE and "!" not in reception.target:
            continue  # what a subscription has in its mailbox stays
        for event, moment in zip(reception.events, reception.moments, strict=True):
            if isinstance(event, Send) and event.ended is not None:
                flushes = [flush for flush in model.flushes if event.ended < flush.began]
                over = [flush for flush in flushes if flush.ended is not None and flush.ended < moment]
                assert not over, f"{reception.name} got {event} at {moment}, after {over}"


def verify_member(model: Model, memberships: Memberships, reception: Reception) -> None:
    """A channel got what was sent to it and its groups, once and in order, or was told of a crash at its place."""
    verify_once([reception])
    for event, moment in zip(reception.events, reception.moments, strict=True):
        if isinstance(event, Send):
            assert memberships.may_get(event, reception, moment), f"{reception.name} got {event} as a stranger"
    _verify_order_by_target(reception)
    _verify_order_by_sender(reception)
    _verify_kinds_of_gaps(model, reception)
    assert not model.is_untold(reception), f"{reception.name} was not told of a crash"
    received = set(reception.received)
    due = [send for send in model.sends if send not in received and memberships.is_due(send, reception)]
    lost = [send for send in due if not _is_accounted_for(model, reception, send)]
    assert not lost, f"{reception.name} lost {len(lost)} without a word: {_described(memberships, reception, lost)}"


def _described(memberships: Memberships, reception: Reception, lost: list[Send]) -> str:
    reasons = [memberships.reason(send, reception) or "to itself" for send in lost]
    lines = [f"{send}, moments {send.started} to {send.ended}" for send in lost]
    return "".join(f"\n{line}: {reason}" for line, reason in zip(lines, reasons, strict=True))


def _verify_order_by_target(reception: Reception) -> None:
    last: dict[str, Position] = {}
    for send in reception.received:
        if send.position is not None:
            before = last.get(send.target, BEGINNING)
            assert send.position > before, f"{reception.name} got {send} behind {before}"
            last[send.target] = send.position


def _verify_order_by_sender(reception: Reception) -> None:
    last: dict[str, Send] = {}
    for send in reception.received:
        if send.fate is Fate.SENT:
            before = last.get(send.sender, send)
            assert send.ended is not None
            assert send.ended >= before.started, f"{reception.name} got {before} before {send}"
            last[send.sender] = max(send, before, key=lambda other: other.started)


def _is_accounted_for(model: Model, reception: Reception, send: Send) -> bool:
    """Whether a receiver has ended before a message could come, or was told at its place that a crash has taken it."""
    behind = [place for place, event in enumerate(reception.events) if _is_earlier(event, send)]
    before = [place for place, event in enumerate(reception.events) if _is_earlier(send, event)]
    if reception.has_ended and not before:
        return True
    first, end = max(behind, default=-1) + 1, min(before, default=len(reception.events))
    crash = next((crash for crash in model.crashes if crash > send.started), None)
    told = [
        moment
        for moment, event in list(zip(reception.moments, reception.events, strict=True))[first:end]
        if isinstance(event, Gap) and event.reason is GapReason.CRASH
    ]
    return crash is not None and any(moment > crash for moment in told)


def _is_earlier(one: Send | Gap, other: Send | Gap) -> bool:
    """Whether one message must come before another, if both come."""
    if isinstance(one, Gap) or isinstance(other, Gap):
        return False
    if one.target == other.target and one.position is not None and other.position is not None:
        return one.position < other.position
    return one.sender == other.sender and one.ended is not None and one.ended < other.started


def verify_stream(model: Model, reception: Reception) -> None:
    """A subscription or a channel got everything, once and in order, or was told of it at its place."""
    verify_once([reception])
    verify_in_order(reception)
    _verify_kinds_of_gaps(model, reception)
    gaps: list[Gap] = []
    last = reception.since or BEGINNING
    for event in reception.events:
        if isinstance(event, Gap):
            gaps.append(event)
        elif event.position is not None:
            _verify_place(model, reception, gaps, last, event.position)
            gaps, last = [], event.position
    assert not model.is_untold(reception), f"{reception.name} was not told of a crash"


def _verify_kinds_of_gaps(model: Model, reception: Reception) -> None:
    for gap in reception.gaps:
        assert (gap.count is None) is (gap.reason is GapReason.CRASH), f"{reception.name} was told of {gap}"
        assert gap.reason is not GapReason.CAPACITY or reception.capacity is not None, f"{reception.name}: {gap}"
    crashes = sum(gap.reason is GapReason.CRASH for gap in reception.gaps)
    # A replay looks for itself, and may tell of the last crash once more.
    assert crashes <= len(model.crashes) + (reception.since is not None and bool(model.crashes)), reception.gaps


def _verify_place(model: Model, reception: Reception, gaps: list[Gap], after: Position, before: Position) -> None:
    received = set(reception.received)
    absent = [send for send in model.stored(reception.target) if send not in received]
    absent = [send for send in absent if after < position_of(send) < before]
    missing = [send for send in absent if model.is_due(send, reception) and not send.may_be_flushed]
    if any(gap.reason is GapReason.CRASH for gap in gaps):
        missing = [send for send in missing if position_of(send).epoch == before.epoch]
    perhaps = sum(send.may_be_stored for send in model.to(reception.target))
    expired = sum(send.may_have_expired for send in absent)
    # A node that was cut off reads from its own position on, which may lie before that of a new subscriber. What this
    # one had before then takes places in its mailbox, too, and is counted when it is dropped.
    had_before = [
        send for send in model.stored(reception.target) if reception.since and position_of(send) <= reception.since
    ]
    dropped = 0 if reception.capacity is None else len(had_before)
    where = f"{reception.name} between {after} and {before}: {gaps}, {missing}, {reception}"
    assert len(missing) <= _count(gaps), f"lost without a word: {where}"
    assert _count(gaps) <= len(absent) + perhaps + dropped, f"more told than lost: {where}"
    assert _count(gaps, GapReason.EXPIRED) <= expired + perhaps, f"told as expired: {where}"


def verify_queue(model: Model, receptions: list[Reception], *, most_held: int) -> None:
    """Consumers got every message of a queue, each once, or some of them were told of it."""
    verify_once(receptions)
    for reception in receptions:
        _verify_kinds_of_gaps(model, reception)
    assert not unaccounted(model, receptions)[most_held:], f"lost without a word: {unaccounted(model, receptions)}"
    received = {send for reception in receptions for send in reception.received}
    absent = [send for send in model.to(receptions[0].target) if send not in received]
    told = sum(_count(reception.gaps) for reception in receptions)
    expired = sum(send.may_have_expired or send.may_be_stored for send in absent)
    assert told <= expired, f"more told than lost: {told} of {absent}"


def unaccounted(model: Model, receptions: list[Reception]) -> list[Send]:
    """What nobody got of a queue, beyond what its consumers were told."""
    received = {send for reception in receptions for send in reception.received}
    absent = [send for send in model.stored(receptions[0].target) if send not in received]
    told_of_crash = max(reception.told_of_crash for reception in receptions)
    # A consumer that begins after a crash has lost nothing in it: where nobody waited, nobody is told.
    was_watched = {crash for crash in model.crashes if any(_watched(reception, crash) for reception in receptions)}
    gone = [crash for crash in model.crashes if crash < told_of_crash or crash not in was_watched]
    missing = [send for send in absent if not send.may_be_flushed]
    missing = [send for send in missing if not any(send.started < crash for crash in gone)]
    return missing[sum(_count(reception.gaps) for reception in receptions) :]


def _watched(reception: Reception, moment: int) -> bool:
    return reception.began is not None and reception.began < moment and not reception.has_ended


def _count(gaps: Iterable[Gap], reason: GapReason | None = None) -> int:
    return sum(gap.count or 0 for gap in gaps if reason in {None, gap.reason})
