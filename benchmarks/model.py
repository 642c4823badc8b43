"""What processes and messages cost a server: the formulas of `docs/performance.md`, "Many processes"."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Final, Self

HEARTBEAT_SECONDS: Final = 5.0
_BYTES_BESIDE: Final = 100  # of a notification: an address, an id, a time, and what the protocol adds


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficients:
    """Seconds of the server's CPU: each second, and for each commit, message, heartbeat, wake-up and notification."""

    second: float
    commit: float
    message: float
    beat: float
    wake: float
    heard: float

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Self:
        """Return those of a record."""
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a service does with one database: rates are of a second, and of all processes together.

    :param processes: event loops that receive.
    :param batch: how many messages share a commit.
    :param concerned: how many processes a message reaches, on average.
    :param is_targeted: a commit wakes only the processes that it concerns, as of PostgreSQL 19.
    """

    processes: int
    messages: float
    batch: float = 1
    concerned: float = 1
    message_bytes: int = 200
    heartbeat: float = HEARTBEAT_SECONDS
    connections_each: int = 3
    is_targeted: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """What happens each second, in the order of the coefficients."""

    seconds: float
    commits: float
    messages: float
    beats: float
    wakes: float
    heard: float

    def cpu_seconds(self, coefficients: Coefficients) -> float:
        """The CPU time that it takes."""
        pairs = zip(astuple(self), astuple(coefficients), strict=True)
        return float(sum(count * each for count, each in pairs))


@dataclass(frozen=True, slots=True)
class Cost:
    """What it takes, of a second."""

    commits: float
    wakes: float
    bytes: float
    connections: int
    cores: float


def counts(load: Load) -> Counts:
    """Each commit and each heartbeat wakes every process, or those that it concerns: for a heartbeat, its own."""
    commits, beats = load.messages / load.batch, load.processes / load.heartbeat
    heard = load.messages * min(load.concerned, load.processes)
    if load.is_targeted:
        wakes = commits * min(load.batch * load.concerned, load.processes) + beats
    else:
        wakes = (commits + beats) * load.processes
    return Counts(1, commits, load.messages, beats, wakes, heard)


def cost(load: Load, coefficients: Coefficients) -> Cost:
    """Return what a load costs a server."""
    happening = counts(load)
    return Cost(
        commits=happening.commits + happening.beats,
        wakes=happening.wakes,
        bytes=happening.heard * (load.message_bytes + _BYTES_BESIDE),
        connections=load.processes * load.connections_each,
        cores=happening.cpu_seconds(coefficients),
    )
