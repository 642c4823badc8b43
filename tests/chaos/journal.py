"""What each process of the run writes down: a line of JSON for each thing that happened, in order, out at once."""

import json
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pgchannels import Position

# A message's target is one of these with a name behind it.
TOPIC = "topic:"
CHANNEL = "channel:"
QUEUE = "queue:"
GROUP = "group:"  # a topic that channels are added to
CLAIMED = "claimed:"  # a work queue whose messages are acknowledged

MEMBER = "member."  # begins the name of a receiver whose channel is in groups; the channel follows


class Key(NamedTuple):
    """What tells a message from all others."""

    target: str
    sender: str
    number: int

    def __str__(self) -> str:
        return f"{self.sender} #{self.number} to {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """When it was written down, in seconds since the run began."""

    at: float = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Sending(_Timed):
    """A send begins. Without an outcome behind it, its process ended meanwhile."""

    target: str
    number: int


@dataclass(frozen=True, slots=True)
class Sent(_Timed):
    """The send returned a position."""

    target: str
    number: int
    position: Position


@dataclass(frozen=True, slots=True)
class Failed(_Timed):
    """The send raised."""

    target: str
    number: int
    may_have_been_sent: bool
    error: str


@dataclass(frozen=True, slots=True)
class Began(_Timed):
    """Every message to the target behind this position is due to the receiver."""

    receiver: str
    target: str
    position: Position


@dataclass(frozen=True, slots=True)
class Received(_Timed):
    """The receiver was given a message; only subscriptions tell its position."""

    receiver: str
    target: str
    sender: str
    number: int
    position: Position | None = None

    @property
    def key(self) -> Key:
        """Which message it was."""
        return Key(self.target, self.sender, self.number)


@dataclass(frozen=True, slots=True)
class Took(_Timed):
    """Work on a message began; `hidden_seconds` later, it may be given to others. The receiver is its queue.

    It was claimed from the queue itself or, if it is dead, from that of the dead letters.
    """

    receiver: str
    sender: str
    number: int
    attempts: int
    position: Position
    asked: float  # when the claim was called
    hidden_seconds: float | None
    is_dead: bool

    @property
    def key(self) -> Key:
        """Which message it was."""
        return Key(self.receiver, self.sender, self.number)


@dataclass(frozen=True, slots=True)
class Worked(_Timed):
    """Work on a message has ended, well or not."""

    receiver: str
    sender: str
    number: int
    attempts: int
    is_done: bool

    @property
    def key(self) -> Key:
        """Which message it was."""
        return Key(self.receiver, self.sender, self.number)


@dataclass(frozen=True, slots=True)
class GapTold(_Timed):
    """The receiver was told that here messages were lost; without a count it is unknown how many, perhaps none."""

    receiver: str
    reason: str
    count: int | None


@dataclass(frozen=True, slots=True)
class Ended(_Timed):
    """The receiver gets nothing more."""

    receiver: str


@dataclass(frozen=True, slots=True)
class Crashed(_Timed):
    """A server was crashed, not before `began`; an epoch has ended there."""

    began: float
    server: str = ""


@dataclass(frozen=True, slots=True)
class Changing(_Timed):
    """A channel begins to be added to a group, or discarded. Without a `Changed` behind it, that may still happen."""

    number: int  # of the changes of this process
    target: str  # the group
    channel: str
    is_addition: bool
    is_own: bool  # the channel belongs to the process


@dataclass(frozen=True, slots=True)
class Changed(_Timed):
    """Adding or discarding has returned."""

    number: int


Record = Sending | Sent | Failed | Began | Received | Took | Worked | GapTold | Ended | Crashed | Changing | Changed

_KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in get_args(Record)}


class Journal:
    """The records of one process, appended to a file; what was written survives the process.

    The seconds since the run began are those of `time.monotonic()`: one clock for all processes of a machine.
    """

    def __init__(self, path: Path, *, began: float) -> None:
        self._file = path.open("a", buffering=1)  # a line at a time
        self._began = began

    def now(self) -> float:
        """The seconds since the run began."""
        return round(time.monotonic() - self._began, 6)

    def write(self, record: Record) -> None:
        """Append a record."""
        timed = replace(record, at=self.now())
        content = {name.name: getattr(timed, name.name) for name in fields(timed)}
        self._file.write(json.dumps({"record": type(record).__name__} | content, default=str) + "\n")

    def close(self) -> None:
        """Write nothing more."""
        self._file.close()


def read_journal(path: Path) -> list[Record]:
    """The records of a file; a killed process may have left half a line at its end."""
    return [_record(json.loads(line)) for line in path.read_text().split("\n")[:-1]]


def _record(content: dict[str, Any]) -> Record:
    kind = _KINDS[content.pop("record")]
    if content.get("position") is not None:
        content["position"] = Position.parse(content["position"])
    return kind(**content)
