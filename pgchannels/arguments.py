"""Checks of the arguments that users give: each returns the value as it is used, or says what is wrong."""

import operator
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import StrEnum
from inspect import iscoroutinefunction
from numbers import Integral, Real
from typing import Final, TypeVar

from pgchannels.errors import ConfigurationError

DAY: Final = 24 * 60 * 60.0
TEN_YEARS: Final = 3650 * DAY
_SHORTEST_SECONDS: Final = 0.001  # with less, repeated work would take all the time
_GREATEST_COUNT: Final = 2**31 - 1  # the database takes no greater integer

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
    """Return any value as text for an error, without what looks like a password."""
    try:
        return f"{redacted(repr(value)):.{_LONGEST_TEXT}}"
    except Exception:  # an integer of many digits, or a `__repr__` that fails
        return f"a value of the type {type(value).__name__:.{_LONGEST_TEXT}}"


def redacted(text: str) -> str:
    """Mask what looks like a password in a text: in a URL, before a host, or after the word."""
    for pattern in _PASSWORDS:
        text = pattern.sub(r"\1***", text)
    return text


def refusal(name: str, value: object, allowed: str) -> ConfigurationError:
    """Return the error that names an argument, its value, and what is allowed."""
    return ConfigurationError(f"{name} must be {allowed}, not {shown(value)}")


def require_seconds(name: str, value: object, *, most: float, or_zero: bool = False) -> float:
    """Return a number of seconds, at least a thousandth.

    :raises ConfigurationError: the value is anything else.
    """
    seconds = _finite(value)
    if seconds is not None and (_SHORTEST_SECONDS <= seconds <= most or (or_zero and seconds == 0)):
        return seconds
    raise refusal(
        name, value, f"{'0, or ' if or_zero else ''}a number of seconds from {_SHORTEST_SECONDS} to {most:,.0f}"
    )


def require_text(name: str, value: object, *, most: int) -> str:
    """Return a text that is not empty and has at most so many characters.

    :raises ConfigurationError: the value is anything else.
    """
    with suppress(Exception):  # of a class whose methods fail, or half of a surrogate pair
        if isinstance(value, str) and 0 < str.__len__(value) <= most and b"\0" not in str.encode(value):
            return str.__str__(value)
    raise refusal(name, value, f"a text of 1 to {most} characters, without NUL")


def require_count(name: str, value: object, *, least: int = 1, most: int | None = None, of: str = "messages") -> int:
    """Return a number of messages, or of other things; without `most`, capped at what the database can count.

    :raises ConfigurationError: the value is anything else.
    """
    count = _whole(value)
    if count is not None and count >= least and (most is None or count <= most):
        return min(count, _GREATEST_COUNT)
    raise refusal(name, value, f"a number of {of} from {least} {'on' if most is None else f'to {most:,}'}")


def require_one_of(name: str, value: object, choices: type[Choice]) -> Choice:
    """Return one of some texts.

    :raises ConfigurationError: the value is anything else.
    """
    with suppress(Exception):  # it is none of them, or of a class whose methods fail
        if isinstance(value, str):
            return choices(value)
    raise refusal(name, value, f"one of {', '.join(repr(str(choice)) for choice in choices)}")


def require_pairs(name: str, value: Iterable[tuple[A, B]], *, of: str) -> list[tuple[A, B]]:
    """Return some pairs.

    :raises ConfigurationError: the value is anything else.
    """
    if isinstance(value, Mapping):
        raise refusal(name, value, f"pairs of {of}, such as its items()")
    try:
        pairs = iter(value)
    except TypeError as error:
        raise refusal(name, value, f"pairs of {of}") from error
    found = []
    for pair in pairs:  # what this raises is the caller's own error
        try:
            found.append(_pair(pair))
        except (TypeError, ValueError) as error:
            raise refusal(name, value, f"pairs of {of}") from error
    return found


def require_callable_or_none(name: str, value: T) -> T:
    """Return a function, or None.

    :raises ConfigurationError: it cannot be called, or is a coroutine function.
    """
    if value is None or (callable(value) and not iscoroutinefunction(value)):
        return value
    raise refusal(name, value, "a function, or None" + (", no coroutine function" if callable(value) else ""))


def _pair(pair: tuple[A, B]) -> tuple[A, B]:
    if isinstance(pair, str | bytes):  # a text of two letters is a pair, too
        raise TypeError
    first, second = pair
    return first, second


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except Exception:  # too large, or of a class whose methods fail
        return None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    try:
        return operator.index(value)
    except Exception:  # of a class whose methods fail
        return None
