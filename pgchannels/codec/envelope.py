"""The envelope: one byte that says how to read the rest."""

from enum import IntEnum

from pgchannels.errors import UnreadableMessage


class Kind(IntEnum):
    """What is inside an envelope."""

    MSGPACK = 1
    JSON = 2
    SEALED = 3
    NAMED = 4  # a user's format: the length of its name, its name, then the bytes of its serializer
    # The length of the headers in two bytes, big end first, the envelope of the headers, that of the payload.
    HEADED = 5
    PLAIN_JSON = 6  # as SQL writes it: JSON in which no dict stands for a type that JSON lacks


_KINDS = {int(kind): kind for kind in Kind}
_FIRST_BYTES = {kind: bytes([kind]) for kind in Kind}


def wrap(kind: Kind, content: bytes) -> bytes:
    """Put content into an envelope."""
    return _FIRST_BYTES[kind] + content


def unwrap(envelope: bytes) -> tuple[Kind, memoryview]:
    """Take an envelope apart.

    :raises UnreadableMessage: it is empty or of a kind that this version does not know.
    """
    kind = _KINDS.get(envelope[0]) if envelope else None
    if kind is None:
        raise UnreadableMessage("the message has an unknown format; a newer pgchannels may have sent it")
    return kind, memoryview(envelope)[1:]


def wrap_named(name: str, content: bytes) -> bytes:
    """Put content in a user's format into an envelope."""
    return wrap(Kind.NAMED, bytes([len(name)]) + name.encode("ascii") + content)


def unwrap_named(content: memoryview) -> tuple[str, bytes]:
    """Return the name of the format, and the content.

    :raises UnreadableMessage: there is no name.
    """
    length = content[0] if content else 0
    name = bytes(content[1 : 1 + length])
    if not name or len(name) < length or not name.isascii():
        raise UnreadableMessage("the message is damaged: it does not name its format")
    return name.decode("ascii"), bytes(content[1 + length :])


def wrap_headed(headers: bytes, payload: bytes) -> bytes:
    """Put the envelope of headers in front of the envelope of a payload."""
    return wrap(Kind.HEADED, len(headers).to_bytes(2) + headers + payload)


def is_headed(envelope: bytes) -> bool:
    """Whether `wrap_headed` made the envelope."""
    return envelope[:1] == _FIRST_BYTES[Kind.HEADED]


def unwrap_headed(content: memoryview) -> tuple[bytes, bytes]:
    """Return the envelope of the headers, and that of the payload.

    :raises UnreadableMessage: they are not there.
    """
    length = int.from_bytes(content[:2])
    headers, payload = bytes(content[2 : 2 + length]), bytes(content[2 + length :])
    if len(headers) < length or is_headed(payload):
        raise UnreadableMessage("the message is damaged: its headers are cut off")
    return headers, payload


def is_sealed(envelope: bytes) -> bool:
    """Whether an envelope is encrypted."""
    return envelope[:1] == _FIRST_BYTES[Kind.SEALED]
