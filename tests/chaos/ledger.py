"""Balances what was sent against what was received and what was told as lost.

What is due. A subscription or a channel must receive every message to its target that has a position behind the one
where it began and not behind the one where it ended. It begins where its journal says: at a message that it published
itself as soon as it was subscribed, or at the position that it was resumed from. It ends at the last message that it
received from this target, but, unless it or its process was ended before, not earlier than at the first of those that
`LAST` sent when every publisher was done. A message whose send raised "may have been sent", or whose sender was killed
meanwhile, is due as soon as some receiver was told its position; one that nobody received is due to nobody.

What a gap covers. A gap is told between two messages of a receiver; for each of its targets it stands between the last
message received from this target before it and the first one after it. A missing message is covered by a gap when its
position lies between these two. A gap with a count covers that many messages, a gap without a count any number. A gap
of a crash covers only messages of an epoch that had ended when it was told; an epoch ends with the first crash of the
server after anybody knew of a message in it. Gaps are matched with missing messages so that as few as possible stay
uncovered; those are *unaccounted*. What counts tell beyond them is *told in excess*: no failure by itself, since
messages whose position nobody knows, and those outside of what is due, may rightly be in them.

A durable log. With `--durable`, no epoch ends with a crash: whatever a crash takes is unaccounted, and so is a gap of
a crash by itself.

Groups. A channel is a certain member of a group from the moment when adding it had returned, in whatever process,
until somebody began to discard it. What began to be sent to the group and returned meanwhile is due to it. A removal
that did not return may take effect at any later time. A membership outlasts a crash if the channel's own process had
added it, or the channel had received something of the group since it was added. To a channel of a process that was
ended only that is due behind which something of the same group or sender came. *Unaccounted* is also what came although
it began to be sent to the group when the channel had left it, and *out of order* what came behind something later of
the same sender, be it sent to the channel itself or to a group.

Work queues. All consumers of a queue are one receiver, and a gap that one of them is told covers what is missing of the
queue, wherever it was told, but a gap of a crash nothing of epochs before the one in which its consumer began. What no
gap covers may be with consumers that were killed with SIGKILL, each of which takes as many messages with it as it had
calls of `receive`, and no more. A crash at which no consumer was there that lived to receive a later message was told
to nobody, and that is no fault.

Claimed work. A job is due as any message of a queue, and has come when somebody has done it, be it as a dead letter: a
killed process takes nothing with it. A job comes again only if work on it failed, if its process has ended, or if the
time for which it was hidden has passed since its claim was called; what else comes again is duplicated, and so is what
comes twice with the same attempts. Each attempt is one that somebody wrote down, or one of a process that ended before
it could, at most one for each of these processes; further ones are unaccounted. So is a report of jobs that expired,
since none does: only gaps of crashes cover jobs. Each process gets jobs in the order of their positions, which are
those of the last time that they were put into the queue, and nobody gets an earlier one by a call that was made when
another process had a later one. Dead letters have such an order of their own. What does not come so is out of order,
and so is a job with fewer attempts than it had before, unless it was hidden for a limited time.

*Duplicated* is what one receiver, or any two consumers of a queue, got more than once. *Out of order* is a message
behind one of the same target with a greater position, or behind one of the same sender to the same target with a
greater number; consumers of a queue take turns, so that no order is asked of them. Unaccounted is also what was
received and never sent, or not sent by the word of its sender, or at another position than its sender was told.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.journal import Record

LAST = "last"
CRASH = "crash"
UNTOLD = "crash while nobody received"
_SHOWN = 5


class Ending(StrEnum):
    """How a process of the run ended."""

    FINISHED = "finished"  # with everything received
    TERMINATED = "terminated"  # earlier, in order
    KILLED = "killed"  # earlier, with no chance to give anything back


@dataclass(frozen=True, slots=True)
class Account:
    """One process of the run: what it wrote down, how it ended, how many messages of a queue it could hold."""

    process: str
    records: Sequence[Record]
    ending: Ending = Ending.FINISHED
    may_hold: int = 0


@dataclass(slots=True)
class Ledger:
    """The result of a run; the last three of its figures must be 0."""

    sent: int = 0
    unknown: int = 0
    not_sent: int = 0
    delivered: int = 0
    taken: int = 0
    done: int = 0
    dead: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    told_in_excess: int = 0
    with_a_killed_process: int = 0
    unaccounted: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)

    @property
    def is_balanced(self) -> bool:
        """Whether every message is accounted for, once and in order."""
        return not (self.unaccounted or self.duplicated or self.out_of_order)

    def lines(self) -> list[str]:
        """The figures, and the first of the messages that break a promise."""
        by_reason = "".join(f", {count:,} {reason}" for reason, count in sorted(self.lost.items()))
        return [
            f"sent                   {self.sent:,}",
            f"unknown                {self.unknown:,} (raised with may_have_been_sent, or the sender was ended)",
            f"not sent               {self.not_sent:,}",
            f"delivered              {self.delivered:,} (summed over the receivers, like the following)",
            f"claimed                {self.taken:,}, {self.done:,} jobs done at least once, {self.dead:,} dead letters",
            f"reported as lost       {self.lost.total():,}{by_reason}",
            f"told in excess         {self.told_in_excess:,}",
            f"with a killed process  {self.with_a_killed_process:,}",
            f"unaccounted            {len(self.unaccounted):,}",
            *_first(self.unaccounted),
            f"duplicated             {len(self.duplicated):,}",
            *_first(self.duplicated),
            f"out of order           {len(self.out_of_order):,}",
            *_first(self.out_of_order),
        ]


def _first(offences: list[str]) -> list[str]:
    return [f"    {offence}" for offence in offences[:_SHOWN]]
