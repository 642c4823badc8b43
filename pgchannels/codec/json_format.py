"""Payloads as JSON, which other languages and SQL can read and write.

A type that JSON lacks becomes a dict with one key: `{"$uuid": "…"}`, `$datetime`, `$date`, `$decimal`, `$bytes`
(base64) and `$set` (a list). A user's dict with one key that begins with `$` gets one more `$`.
"""

import json
from base64 import b64decode, b64encode
from decimal import Decimal
from itertools import accumulate
from math import isfinite
from typing import Any, Final

from pgchannels.codec.carriable import GREATEST_INTEGER, LEAST_INTEGER, Default, as_received, require_64_bits
from pgchannels.codec.extensions import EXTENSIONS, SETS
from pgchannels.codec.members import frozen
from pgchannels.codec.plain import DEEPEST_NESTING, is_plain
from pgchannels.errors import InvalidMessage, UnreadableMessage

_LOADERS: Final = {
    "$bytes": b64decode,
    **{f"${extension.name}": extension.from_text for extension in EXTENSIONS.values()},
}
_DEEPEST_TEXT: Final = 2 * DEEPEST_NESTING + 1  # a set takes two levels, the content of the innermost may take one more
_CONTAINERS: Final = frozenset({dict, list, tuple, *SETS})
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_ALL_BUT_BRACKETS: Final = bytes(set(range(256)) - _STEPS.keys())
_DIGITS_AS_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 19  # as many digits as the least that does not fit into 64 bits


def pack(payload: Any, default: Default | None = None) -> bytes:
    """Return the text of a payload, in UTF-8; for `default` see `as_received`.

    :raises InvalidMessage: it holds a value that JSON cannot carry; the text says where.
    :raises MessageTooLarge: it cannot fit into a message.
    """
    boxed = _boxed(as_received(payload, only_finite=True, default=default), {})
    return _ENCODER.encode(boxed).encode()


def unpack(text: bytes | memoryview) -> Any:
    """Return the payload in a JSON text.

    :raises UnreadableMessage: the text is not JSON, or holds what no message can carry.
    """
    return _unpack(text, _DECODER, _WARY_DECODER)


def unpack_plain(text: bytes | memoryview) -> Any:
    """As `unpack`, for JSON as SQL writes it.

    No dict stands for a type that JSON lacks. An integer of more than 64 bits, or a number too large for a float, is a
    Decimal.
    """
    return _unpack(text, _PLAIN_DECODER, _WARY_PLAIN_DECODER)


def _unpack(text: bytes | memoryview, decoder: json.JSONDecoder, wary_decoder: json.JSONDecoder) -> Any:
    try:
        return _parsed(bytes(text), decoder, wary_decoder)
    except InvalidMessage as error:
        raise UnreadableMessage(f"the message was sent by no pgchannels: {error}") from error
    except Exception as error:  # also what UUID and others raise
        raise UnreadableMessage("the message is damaged: its bytes are no JSON") from error


def _parsed(text: bytes, decoder: json.JSONDecoder, wary_decoder: json.JSONDecoder) -> Any:
    can_be_deep = text.count(b"[") + text.count(b"{") > DEEPEST_NESTING
    if can_be_deep and _depth(text) > _DEEPEST_TEXT:
        raise ValueError("it is nested too deep")
    can_be_long = _LONG_NUMBER in text.translate(_DIGITS_AS_ZERO)
    value = (wary_decoder if can_be_long else decoder).decode(text.decode())
    if b"\\" in text or (can_be_deep and not is_plain(value)):
        return as_received(value)  # an escape can stand for half of a surrogate pair
    return value


def _boxed(value: Any, known: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _CONTAINERS:
        if id(value) not in known:  # what is shared is boxed once
            known[id(value)] = _boxed_container(kind, value, known)
        return known[id(value)]
    if kind is bytes:
        return {"$bytes": b64encode(value).decode()}
    extension = EXTENSIONS.get(kind)
    return value if extension is None else {f"${extension.name}": extension.to_text(value)}


def _boxed_container(kind: type, value: Any, known: dict[int, Any]) -> Any:
    if kind is dict:
        is_like_a_box = len(value) == 1 and next(iter(value)).startswith("$")
        return {f"${key}" if is_like_a_box else key: _boxed(item, known) for key, item in value.items()}
    items = [_boxed(item, known) for item in value]
    return {"$set": items} if kind in SETS else items


def _unboxed(pairs: dict[str, Any]) -> Any:
    if len(pairs) != 1:
        return pairs
    [(key, content)] = pairs.items()
    if key.startswith("$$"):
        return {key[1:]: content}
    if key == "$set":
        return _set(content)
    load = _LOADERS.get(key)
    return pairs if load is None else load(content)


def _set(items: Any) -> set[Any]:
    if type(items) is not list:
        raise TypeError("the content of $set is no list")
    return set(frozen(map(_hashable, items)))


def _hashable(item: Any) -> Any:
    if type(item) is list:
        return tuple([_hashable(inner) for inner in item])
    return frozenset(item) if type(item) is set else item


def _integer(digits: str) -> int:
    # The time to parse digits into an int grows with the square of their number.
    if len(digits) > len(_LONG_NUMBER) + 1:
        raise ValueError("an integer of more than 64 bits")
    return require_64_bits(int(digits))


def _integer_or_decimal(digits: str) -> int | Decimal:
    if len(digits) > len(_LONG_NUMBER) + 1:
        return Decimal(digits)
    number = int(digits)
    return number if LEAST_INTEGER <= number <= GREATEST_INTEGER else Decimal(digits)


def _float_or_decimal(digits: str) -> float | Decimal:
    number = float(digits)
    return number if isfinite(number) else Decimal(digits)


def _depth(text: bytes) -> int:
    # How deep the recursive parser would go. After a place where it stops, this may be wrong.
    without_escapes = text.replace(rb"\\", b"").replace(rb"\"", b"")
    brackets = b"".join(without_escapes.split(b'"')[::2]).translate(None, _ALL_BUT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


# Nothing is circular: `as_received` refuses that.
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_DECODER: Final = json.JSONDecoder(object_hook=_unboxed)
_WARY_DECODER: Final = json.JSONDecoder(object_hook=_unboxed, parse_int=_integer)
_PLAIN_DECODER: Final = json.JSONDecoder()
_WARY_PLAIN_DECODER: Final = json.JSONDecoder(parse_int=_integer_or_decimal, parse_float=_float_or_decimal)
