"""What no message can carry, and where in a payload it is."""

from typing import Any, Final

from pgchannels.codec.extensions import SETS, extension_for
from pgchannels.errors import InvalidMessage

_DEEPEST_NESTING: Final = 200
_INTEGERS: Final = range(-(2**63), 2**64)
_CONTAINERS: Final = (dict, list, tuple)


def has_text_keys(payload: Any) -> bool:
    """Whether the keys of all dicts are str: what packing alone would not find out."""
    containers = [payload]
    for container in containers:
        if isinstance(container, dict):
            for key in container:
                if not isinstance(key, str):
                    return False
            container = container.values()
        elif not isinstance(container, list | tuple):
            continue
        for item in container:
            if isinstance(item, _CONTAINERS):
                containers.append(item)  # noqa: PERF401 -- twice as fast for a few items
    return True


def require_carriable(payload: Any) -> None:
    """Check every value.

    :raises InvalidMessage: one cannot be carried; the text says where it is.
    """
    try:
        _require_carriable(payload)
    except _UncarriableError as error:
        raise InvalidMessage(str(error)) from None


def _require_carriable(value: Any, depth: int = 0) -> None:
    if isinstance(value, str):
        _require_unicode(value)
    elif value is None or isinstance(value, float | bytes):
        return
    elif isinstance(value, int):
        if value not in _INTEGERS:
            raise _UncarriableError("is an integer of more than 64 bits: send it as a str")
    elif isinstance(value, _CONTAINERS + SETS):
        _require_carriable_items(value, depth + 1)
    elif extension_for(value) is None:
        raise _UncarriableError(
            f"is a {type(value).__name__}: a message carries None, bool, int, float, str, bytes, list, dict, set, UUID,"
            " datetime, date and Decimal"
        )


def _require_carriable_items(container: Any, depth: int) -> None:
    if depth > _DEEPEST_NESTING:
        raise _UncarriableError(f"is nested more than {_DEEPEST_NESTING} deep, or contains itself")
    is_dict = isinstance(container, dict)
    if is_dict:
        _require_carriable_keys(container)
    for key, item in container.items() if is_dict else enumerate(container):
        try:
            _require_carriable(item, depth)
        except _UncarriableError as error:
            error.path.append(f"[{key!r:.80}]")
            raise


def _require_carriable_keys(container: dict[Any, Any]) -> None:
    for key in container:
        if not isinstance(key, str):
            raise _UncarriableError(f"has the key {key!r:.80}, a {type(key).__name__}: keys are str")
        _require_unicode(key)


def _require_unicode(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _UncarriableError("holds half of a surrogate pair, which is no Unicode text") from error


class _UncarriableError(Exception):
    """Gathers the path to the trouble on its way out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        path = self.path[::-1]
        shown = path if len(path) <= 8 else [*path[:4], "…", *path[-3:]]
        return f"message{''.join(shown)} {self.reason}"
