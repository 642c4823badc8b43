"""What a work is: something that contestants do side by side, what is measured in it, and what was promised of it."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from benchmarks.crew import Crew, Figures

OURS: Final = "pgchannels"
PUBSUB: Final = "redis-pubsub"
CORE: Final = "redis-core"
CHANNELS: Final = (OURS, PUBSUB, CORE, "channels-postgres", "channels-nats", "in-memory")
EVERYBODY: Final = (
    OURS,
    "pgchannels-api",
    "bare",
    PUBSUB,
    CORE,
    "channels-postgres",
    "channels-nats",
    "in-memory",
    "broadcaster",
    "litestar",
)


def except_for(*left_out: str, of: tuple[str, ...] = EVERYBODY) -> tuple[str, ...]:
    """The contestants without some of them."""
    return tuple(name for name in of if name not in left_out)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything a run does."""

    rounds: int  # at most
    seconds: float  # for which senders send
    messages: int  # one after another
    repeats: int  # of one message to a group
    largest_group: int
    largest_membership: int
    backlog: int
    subscribers: int
    waiting_messages: int
    share_databases: bool  # of a contestant, between its works
    limit_seconds: float = math.inf  # for one measurement, if a work has no shorter one


FULL: Final = Scale(
    rounds=5,
    seconds=1.0,
    messages=400,
    repeats=5,
    largest_group=10_000,
    largest_membership=100_000,
    backlog=1_000_000,
    subscribers=10_000,
    waiting_messages=20_000,
    share_databases=False,
)
QUICK: Final = Scale(
    rounds=1,
    seconds=0.1,
    messages=30,
    repeats=1,
    largest_group=100,
    largest_membership=1_000,
    backlog=5_000,
    subscribers=200,
    waiting_messages=500,
    share_databases=True,
    limit_seconds=20,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that is measured; `unit` is how it is printed."""

    title: str
    unit: Literal["/s", "s", "bytes", ""]

    @property
    def more_is_better(self) -> bool:
        """A rate, and nothing else."""
        return self.unit == "/s"


@dataclass(frozen=True, slots=True)
class Goal:
    """What was promised of a figure of ours.

    A ratio to the same figure of another contestant in the same run, or to another figure (`against_figure`) of the
    same one; or an absolute limit, when `against` is None.
    """

    figure: str
    against: str | None
    at_least: float | None = None
    at_most: float | None = None
    of: str = OURS
    against_figure: str | None = None


Measure = Callable[[Crew, Scale], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Work:
    """`measure` runs once a round for each contestant; `processes` is how many it needs for that."""

    name: str
    title: str
    contestants: tuple[str, ...]
    measure: Measure
    figures: Mapping[str, Figure]
    goals: tuple[Goal, ...] = ()
    processes: int = 1
    rounds: int = 5
    limit_seconds: float = 30  # for one measurement; who takes longer is left out of the rest of the work
    left_out: Mapping[str, str] = field(default_factory=dict)  # who cannot do this, and why
