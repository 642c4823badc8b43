"""Payloads as msgpack: None, bool, int of 64 bits, float, str, bytes, and lists and dicts of these.

Tuples become lists. Keys of dicts are str.
"""

import json
from typing import Any, Final

import msgpack

from pgchannels.errors import InvalidMessage, MessageTooLarge, UnreadableMessage

LARGEST_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_DEEPEST_NESTING: Final = 200
_INTEGERS: Final = range(-(2**63), 2**64)


def pack(payload: Any) -> bytes:
    """The bytes of a payload.

    :raises InvalidMessage: it holds a value of another type; the text says where.
    :raises MessageTooLarge: it takes more than `LARGEST_MESSAGE_BYTES`.
    """
    try:
        _require_carriable(payload)
    except _UncarriableError as error:
        raise InvalidMessage(str(error)) from None
    packed: bytes = msgpack.packb(payload, use_bin_type=True)
    if len(packed) > LARGEST_MESSAGE_BYTES:
        raise MessageTooLarge(
            f"the message takes {len(packed):,} bytes, {LARGEST_MESSAGE_BYTES:,} are the most: send it in parts"
        )
    return packed


def unpack(packed: bytes | memoryview) -> Any:
    """The payload in the bytes, a new copy each time.

    :raises UnreadableMessage: the bytes are no msgpack.
    """
    try:
        return msgpack.unpackb(packed, raw=False, ext_hook=_refuse_extension)
    except Exception as error:  # msgpack raises ValueError, its subclasses, and others on damaged bytes
        raise UnreadableMessage("the message is damaged: its bytes are no msgpack") from error


def unpack_json(text: bytes | memoryview) -> Any:
    """The payload in a JSON text.

    :raises UnreadableMessage: it is no JSON.
    """
    try:
        return json.loads(bytes(text))
    except (ValueError, RecursionError) as error:
        raise UnreadableMessage("the message is damaged: its bytes are no JSON") from error


def _refuse_extension(code: int, _: bytes) -> None:
    raise ValueError(f"no message has the type {code} of msgpack's extensions")


def _require_carriable(value: Any, depth: int = 0) -> None:
    if isinstance(value, str):
        _require_unicode(value)
    elif value is None or isinstance(value, float | bytes):
        return
    elif isinstance(value, int):
        if value not in _INTEGERS:
            raise _UncarriableError("is an integer of more than 64 bits: send it as a str")
    elif isinstance(value, dict | list | tuple):
        _require_carriable_items(value, depth + 1)
    else:
        raise _UncarriableError(
            f"is a {type(value).__name__}: a message carries None, bool, int, float, str, bytes, list and dict"
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
