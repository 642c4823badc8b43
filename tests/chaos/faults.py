"""The faults of a run: in the same sequence for the same seed, up to three at a time."""

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from tests.chaos.crew import PLACES

_PAUSE_SECONDS: Final = (0.2, 1.5)
_LAST_SECONDS: Final = (0.5, 3.0)


class Kind(StrEnum):
    """What happens."""

    TERMINATE = "terminate"
    RESTART = "restart"
    RESTART_AT_ONCE = "restart-at-once"
    CRASH = "crash"
    CUT = "cut"
    REFUSE = "refuse"
    FREEZE = "freeze"
    FREEZE_REQUESTS = "freeze-requests"
    FREEZE_ANSWERS = "freeze-answers"
    KILL = "kill"
    END = "end"
    STOP = "stop"
    SWITCH_OVER = "switch-over"
    FAIL_OVER = "fail-over"
    ISOLATE = "isolate"
    HANG = "hang"


# Faults of one lane follow each other; those of different lanes may meet: of servers, connections and processes. The
# figures are weights; those of faults of servers come from the servers.
LANES: Final = 3
_OF_CONNECTIONS: Final = {Kind.CUT: 3, Kind.REFUSE: 2, Kind.FREEZE: 2, Kind.FREEZE_REQUESTS: 2, Kind.FREEZE_ANSWERS: 2}
_OF_PROCESSES: Final = {Kind.KILL: 3, Kind.END: 3, Kind.STOP: 4}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, after which pause, for how long, in which places, to which share of the connections there."""

    kind: Kind
    pause_seconds: float
    seconds: float
    places: tuple[str, ...]
    share: float
    held: Literal["forward", "drop"]  # what becomes of what a frozen connection holds
    freezes_new: bool  # or only the connections that there are

    @property
    def lane(self) -> int:
        """Which other faults it does not meet."""
        return 2 if self.kind in _OF_PROCESSES else 1 if self.kind in _OF_CONNECTIONS else 0

    def __str__(self) -> str:
        places = self.places[0] if len(self.places) == 1 else "all places"
        match self.kind:
            case Kind.TERMINATE:
                return f"{self.kind} {self.share:.0%} of the connections"
            case Kind.CRASH:
                return f"{self.kind}, and start after {self.seconds:.1f} s"
            case Kind.RESTART | Kind.RESTART_AT_ONCE | Kind.SWITCH_OVER:
                return str(self.kind)
            case Kind.FAIL_OVER | Kind.ISOLATE | Kind.HANG:
                return f"{self.kind} the primary, until {self.seconds:.1f} s after another one leads"
            case Kind.CUT | Kind.KILL | Kind.END:
                return f"{self.kind} {places}"
            case Kind.REFUSE | Kind.STOP:
                return f"{self.kind} {places} for {self.seconds:.1f} s"
            case Kind.FREEZE | Kind.FREEZE_REQUESTS | Kind.FREEZE_ANSWERS:
                which = "" if self.freezes_new else "the connections of "
                return f"{self.kind} {which}{places} for {self.seconds:.1f} s, then {self.held} what was held"


def faults(seed: str, of_servers: Mapping[Kind, int], only: Collection[Kind] = ()) -> Iterator[Fault]:
    """Endlessly many faults, of these kinds or of all that the servers have."""
    rng = random.Random(seed)
    kinds = {**of_servers, **_OF_CONNECTIONS, **_OF_PROCESSES}
    weights = {kind: weight for kind, weight in kinds.items() if not only or kind in only}
    while True:
        [kind] = rng.choices(list(weights), list(weights.values()))
        place = rng.choice(list(PLACES))
        is_everywhere = rng.random() < 0.25 and kind not in _OF_PROCESSES
        yield Fault(
            kind,
            pause_seconds=rng.uniform(*_PAUSE_SECONDS),
            seconds=rng.uniform(*_LAST_SECONDS),
            places=tuple(PLACES) if is_everywhere else (place,),
            share=min(1.0, rng.uniform(0.1, 1.5)),
            held=rng.choice(("forward", "forward", "drop")),
            freezes_new=rng.random() < 0.5,
        )
