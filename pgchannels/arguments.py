"""What the arguments that users give may be: each check returns the value as it is used, or names what is wrong."""

import operator
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from inspect import iscoroutinefunction
from numbers import Integral, Real
from typing import Final, TypeVar

from pgchannels.errors import ConfigurationError

DAY: Final = 24 * 60 * 60.0
TEN_YEARS: Final = 3650 * DAY
_SHORTEST_SECONDS: Final = 0.001  # with less, what is done again and again takes all the time
_GREATEST_COUNT: Final = 2**31 - 1  # a greater integer the database does not take

_LONGEST_TEXT: Final = 100
_PASSWORDS: Final = (
    re.compile(r"(//[^\s:/@'\"]*(?::|%3[aA]))[^\s@]+(?=@|%40)"),
    re.compile(r"(\b[\w.-]+:)[^\s:/@'\"]+(?=@)"),
    re.compile(r"((?i:password|passwd|pwd)['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&}]+"),
)

A = TypeVar("A")
B = TypeVar("B")
T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)


def shown(value: object) -> str:
    """A value for the text of an error, whatever it is; what looks like a password is left out."""
    try:
        return f"{redacted(repr(value)):.{_LONGEST_TEXT}}"
    except Exception:  # an integer of many digits, or a `__repr__` that fails
        return f"a value of the type {type(value).__name__:.{_LONGEST_TEXT}}"


def redacted(text: str) -> str:
    """A text without what looks like a password in it: in a URL, before a host, or behind the word."""
    for pattern in _PASSWORDS:
        text = pattern.sub(r"\1***", text)
    return text


def refusal(name: str, value: object, allowed: str) -> ConfigurationError:
    """The error that names an argument, its value, and what is allowed."""
    return ConfigurationError(f"{name} must be {allowed}, not {shown(value)}")


def require_seconds(name: str, value: object, *, most: float, or_zero: bool = False) -> float:
    """A number of seconds, from a thousandth on.

    :raises ConfigurationError: it is anything else.
    """
    seconds = _finite(value)
    if seconds is not None and (_SHORTEST_SECONDS <= seconds <= most or (or_zero and seconds == 0)):
        return seconds
    raise refusal(
        name, value, f"{'0, or ' if or_zero else ''}a number of seconds from {_SHORTEST_SECONDS} to {most:,.0f}"
    )


def require_count(name: str, value: object, *, least: int = 1, most: int | None = None, of: str = "messages") -> int:
    """A number of messages, or of other things; without `most`, what is more than the database can count is that.

    :raises ConfigurationError: it is anything else.
    """
    count = _whole(value)
    if count is not None and count >= least and (most is None or count <= most):
        return min(count, _GREATEST_COUNT)
    raise refusal(name, value, f"a number of {of} from {least} {'on' if most is None else f'to {most:,}'}")


def require_one_of(name: str, value: object, choices: type[Choice]) -> Choice:
    """One of some texts.

    :raises ConfigurationError: it is anything else.
    """
    if isinstance(value, str) and value in list(choices):
        return choices(value)
    raise refusal(name, value, f"one of {', '.join(repr(str(choice)) for choice in choices)}")


def require_pairs(name: str, value: Iterable[tuple[A, B]], *, of: str) -> list[tuple[A, B]]:
    """Some pairs.

    :raises ConfigurationError: it is anything else.
    """
    if isinstance(value, Mapping):
        raise refusal(name, value, f"pairs of {of}, such as its items()")
    try:
        return [_pair(pair) for pair in value]
    except (TypeError, ValueError) as error:
        raise refusal(name, value, f"pairs of {of}") from error


def require_callable_or_none(name: str, value: T) -> T:
    """A function, or None.

    :raises ConfigurationError: it cannot be called.
    """
    if value is None or (callable(value) and not iscoroutinefunction(value)):
        return value
    raise refusal(name, value, "a function, or None" + (", no coroutine function" if callable(value) else ""))


def _pair(pair: tuple[A, B]) -> tuple[A, B]:
    if isinstance(pair, str | bytes):  # two letters are a pair, too
        raise TypeError
    first, second = pair
    return first, second


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except Exception:  # it is too large, or of a class whose methods fail
        return None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    try:
        return operator.index(value)
    except Exception:  # of a class whose methods fail
        return None
