"""Payloads as msgpack: None, bool, int of 64 bits, float, str, bytes, list, dict, and `extensions`.

Tuples become lists. Keys of dicts are str.
"""

from typing import Any

import msgpack

from pgchannels.codec.carriable import has_text_keys, require_carriable
from pgchannels.codec.extensions import EXTENSIONS, SET_CODE, SETS, extension_for
from pgchannels.errors import InvalidMessage, UnreadableMessage

_LOADERS = {extension.code: extension.from_text for extension in EXTENSIONS}


def pack(payload: Any) -> bytes:
    """The bytes of a payload.

    :raises InvalidMessage: it holds a value of another type; the text says where.
    """
    try:
        packed: bytes = msgpack.packb(payload, default=_extension)
    except (TypeError, ValueError, OverflowError) as error:
        require_carriable(payload)  # says where the trouble is
        raise InvalidMessage(f"the message cannot be packed: {error}") from error
    if not has_text_keys(payload):
        require_carriable(payload)
    return packed


def unpack(packed: bytes | memoryview) -> Any:
    """The payload in the bytes, a new copy each time.

    :raises UnreadableMessage: the bytes are no msgpack.
    """
    try:
        return msgpack.unpackb(packed, ext_hook=_value)
    except Exception as error:  # msgpack raises ValueError, its subclasses, and others on damaged bytes
        raise UnreadableMessage("the message is damaged: its bytes are no msgpack") from error


def _extension(value: Any) -> msgpack.ExtType:
    if isinstance(value, SETS):
        return msgpack.ExtType(SET_CODE, msgpack.packb(list(value), default=_extension))
    extension = extension_for(value)
    if extension is None:
        raise TypeError(f"no message carries a {type(value).__name__}")
    return msgpack.ExtType(extension.code, extension.to_text(value).encode())


def _value(code: int, content: bytes) -> Any:
    return set(_items(content)) if code == SET_CODE else _LOADERS[code](content.decode())


def _items(content: bytes) -> Any:
    # Inside a set all must be hashable: tuples stay tuples, sets are frozen.
    return msgpack.unpackb(content, use_list=False, ext_hook=_hashable)


def _hashable(code: int, content: bytes) -> Any:
    return frozenset(_items(content)) if code == SET_CODE else _value(code, content)
