"""The headers of a message: a small map beside its payload."""

from collections.abc import Mapping
from typing import Any, Final

from pgchannels.arguments import shown
from pgchannels.codec import msgpack_format
from pgchannels.codec.carriable import GREATEST_INTEGER, LEAST_INTEGER
from pgchannels.errors import InvalidMessage, MessageTooLarge, UnreadableMessage
from pgchannels.messages import Header

_MOST_BYTES: Final = 4096


def pack_headers(headers: Mapping[str, Header]) -> bytes:
    """Return headers as bytes, none if there are no headers.

    :raises InvalidMessage: a name is no text, or a value neither text, nor bytes, nor an integer of 64 bits.
    :raises MessageTooLarge: they take more than 4096 bytes.
    """
    if not isinstance(headers, Mapping):
        raise InvalidMessage(f"headers must be a dict of str and str, bytes or int, not {shown(headers)}")
    for name, value in headers.items():
        if not _is_header(name, value):
            raise InvalidMessage(
                f"headers[{shown(name)}]={shown(value)}: a header has a str as its name, and str, bytes or an int of 64"
                " bits as its value"
            )
    packed = msgpack_format.pack(dict(headers)) if headers else b""
    if len(packed) > _MOST_BYTES:
        raise MessageTooLarge(f"the headers take {len(packed):,} bytes, {_MOST_BYTES:,} are the most")
    return packed


def require_headers(value: Any) -> Mapping[str, Header]:
    """Return headers that were received.

    :raises UnreadableMessage: they are something else.
    """
    if isinstance(value, dict) and all(_is_header(*item) for item in value.items()):
        return value
    raise UnreadableMessage("the message is damaged: its headers are no headers")


def _is_header(name: object, value: object) -> bool:
    if isinstance(value, int):
        return isinstance(name, str) and not isinstance(value, bool) and LEAST_INTEGER <= value <= GREATEST_INTEGER
    return isinstance(name, str) and isinstance(value, str | bytes)
