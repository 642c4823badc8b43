"""Copies of errors: one for each who raises it."""

import copy
import traceback
from dataclasses import dataclass

import asyncpg
import pytest

from pgchannels import Gap, GapReason, MessagesLost, PgChannelsError, errors
from pgchannels.errors import copy_of

OURS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PgChannelsError)),
    key=lambda kind: kind.__name__,
)


class OddConstructor(Exception):
    """Takes what it does not keep in `args`."""

    def __init__(self, host: str, *, port: int) -> None:
        super().__init__(f"cannot reach {host}:{port}")
        self.host = host
        self.port = port


class OddNew(Exception):
    """Is made by a method of its own."""

    def __new__(cls, *, reason: str) -> "OddNew":
        return super().__new__(cls, reason)

    def __init__(self, *, reason: str) -> None:
        self.reason = reason


class WithSlots(ValueError):
    """Keeps something outside of `__dict__`."""

    __slots__ = ("__hidden", "limit", "unset")

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.__hidden = limit + 1

    def __str__(self) -> str:
        return f"beyond {self.limit}, {self.__hidden}"


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuses to be changed."""

    reason: str

    def __str__(self) -> str:
        return self.reason


class TwoBases(PgChannelsError, ConnectionResetError):
    """Ours and the system's."""

    def __init__(self, text: str) -> None:
        ConnectionResetError.__init__(self, 104, text)
        self.may_have_been_sent = True


def raised_by_the_database() -> Exception:
    """As the driver makes it."""
    error = asyncpg.UniqueViolationError("duplicate key")
    error.detail = "Key (id)=(1) already exists."
    return error


def undecodable() -> UnicodeDecodeError:
    """As Python makes it."""
    with pytest.raises(UnicodeDecodeError) as raised:
        b"\xff".decode()
    return raised.value


THEIRS = [
    OddConstructor("localhost", port=1),
    OddNew(reason="odd"),
    WithSlots(3),
    Frozen("frozen"),
    TwoBases("reset"),
    raised_by_the_database(),
    undecodable(),
    FileNotFoundError(2, "No such file or directory", "/nowhere"),
    TimeoutError(),
    KeyError("key"),
    ModuleNotFoundError("no module", name="nowhere"),
    StopIteration(5),
    SystemExit(3),
    ExceptionGroup("several", [ValueError(1), OddConstructor("a", port=2)]),
]


def ours(kind: type[PgChannelsError]) -> PgChannelsError:
    """One of this class, with everything in it that it can hold."""
    if issubclass(kind, MessagesLost):
        return kind(Gap(GapReason.CRASH, 3), " (advice)")
    return kind("text", may_have_been_sent=True)


@pytest.mark.parametrize("error", [*map(ours, OURS), *THEIRS], ids=lambda error: type(error).__name__)
def test_copy_is_the_same_but_for_its_traceback(error: BaseException) -> None:
    cause, context = OSError("cause"), OSError("context")
    BaseException.__setattr__(error, "__cause__", cause)
    BaseException.__setattr__(error, "__context__", context)
    BaseException.__setattr__(error, "__traceback__", cause.__traceback__)
    vars(error)["__notes__"] = ["note"]  # as `add_note`
    copied = copy_of(error)
    assert copied is not error
    assert type(copied) is type(error)
    assert (str(copied), repr(copied), copied.args) == (str(error), repr(error), error.args)
    assert vars(copied) == vars(error)
    for name in ("errno", "filename", "value", "code", "name", "exceptions", "start", "limit", "count", "sqlstate"):
        assert getattr(copied, name, None) == getattr(error, name, None)
    assert copied.__cause__ is cause
    assert copied.__context__ is context
    assert copied.__suppress_context__ is error.__suppress_context__
    assert copied.__traceback__ is None
    assert (str(copy_of(copied)), vars(copy_of(copied))) == (str(error), vars(error))


def test_copies_of_an_error_that_was_raised_do_not_grow() -> None:
    original, depths = OddConstructor("localhost", port=1), []
    for _ in range(5):
        with pytest.raises(OddConstructor) as raised:
            raise copy_of(original)
        depths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert original.__traceback__ is None
    assert len(set(depths)) == 1


def test_copy_keeps_a_value_of_its_own_of_what_changes_later() -> None:
    original = MessagesLost(Gap(GapReason.CAPACITY, 1))
    copied = copy_of(original)
    original.gap = Gap(GapReason.CAPACITY, 2)
    assert (copied.count, original.count) == (1, 2)


def test_error_that_cannot_be_copied_is_returned_itself() -> None:
    group = ExceptionGroup("several", [ValueError(1)])
    group.args = ()
    with pytest.raises(TypeError):
        copy.copy(group)
    assert copy_of(group) is group
