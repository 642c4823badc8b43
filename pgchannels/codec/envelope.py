"""The envelope: one byte that says how to read the rest."""

from enum import IntEnum

from pgchannels.errors import UnreadableMessage


class Kind(IntEnum):
    """What is inside an envelope."""

    MSGPACK = 1
    JSON = 2
    SEALED = 3
    NAMED = 4  # a user's format: the length of its name, its name, then the bytes of its serializer


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


def sealed_content(envelope: bytes) -> memoryview:
    """Return the content of a sealed envelope. Plain ones are refused: anybody who writes to the log could forge them.

    :raises UnreadableMessage: the envelope is plain.
    """
    kind, content = unwrap(envelope)
    if kind is not Kind.SEALED:
        raise UnreadableMessage("the message is not encrypted, but symmetric_encryption_keys are configured here")
    return content
