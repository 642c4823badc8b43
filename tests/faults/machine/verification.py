"""What must be true in the end of an example, whatever was done in it; `model` has the words."""

from collections.abc import Iterable

from pgchannels import Gap, GapReason, Position
from tests.faults.machine.model import BEGINNING, Fate, Model, Reception, Send, position_of


def verify_senders(model: Model) -> None:
    """What one sender has sent to one target stands in the order of its calls."""
    last: dict[tuple[str, str], Send] = {}
    for send in model.sends:
        if send.fate is Fate.SENT:
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
            assert send.target == reception.target, f"{reception.name} got {send}, which was for another"


def verify_in_order(reception: Reception) -> None:
    """A receiver got what it got in the order of positions."""
    known = [send for send in reception.received if send.position]
    assert known == sorted(known, key=position_of), f"{reception.name} got disorder: {known}"
    again = [send for send in known if reception.since is not None and position_of(send) <= reception.since]
    assert not again, f"{reception.name} had {again} before: {reception}"


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
    missing = [send for send in absent if model.is_due(send, reception)]
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
    missing = [send for send in absent if not any(send.started < crash for crash in gone)]
    return missing[sum(_count(reception.gaps) for reception in receptions) :]


def _watched(reception: Reception, moment: int) -> bool:
    return reception.began is not None and reception.began < moment and not reception.has_ended


def _count(gaps: Iterable[Gap], reason: GapReason | None = None) -> int:
    return sum(gap.count or 0 for gap in gaps if reason in {None, gap.reason})
