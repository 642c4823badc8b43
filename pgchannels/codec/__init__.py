"""Between a user's value and the bytes in the database."""

from collections.abc import Sequence
from typing import Any

from pgchannels.codec import envelope, serialization
from pgchannels.codec.encryption import Keyring

__all__ = ["Codec"]


class Codec:
    """Packs payloads into envelopes and opens them; sealed when there are keys."""

    def __init__(self, keys: Sequence[str | bytes] = ()) -> None:
        self._keyring = Keyring(keys) if keys else None

    def encode(self, payload: Any, *, bound_to: str) -> bytes:
        """The envelope that carries a payload. Sealed ones open only for the same `bound_to`.

        :raises InvalidMessage: the payload holds a value that no message can carry.
        :raises MessageTooLarge: it takes more than `serialization.LARGEST_MESSAGE_BYTES`.
        """
        plain = envelope.wrap(envelope.Kind.MSGPACK, serialization.pack(payload))
        if self._keyring is None:
            return plain
        return envelope.wrap(envelope.Kind.SEALED, self._keyring.seal(plain, bound_to=bound_to))

    def open(self, sealed: bytes, *, bound_to: str) -> bytes:
        """The plain envelope inside a sealed one; a plain one itself where there are no keys.

        :raises UnreadableMessage: it is plain although there are keys, or no key opens it.
        """
        kind, content = envelope.unwrap(sealed)
        if self._keyring is not None:
            return self._keyring.unseal(envelope.require_sealed(kind, content), bound_to=bound_to)
        envelope.require_plain(kind)
        return sealed

    def decode(self, plain: bytes) -> Any:
        """A new copy of the payload in a plain envelope.

        :raises UnreadableMessage: the bytes are damaged or of a newer version.
        """
        kind, content = envelope.unwrap(plain)
        return serialization.unpack_json(content) if kind is envelope.Kind.JSON else serialization.unpack(content)
