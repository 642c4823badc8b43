"""Between a user's value and the bytes in the database. `carriable` says what a message carries, and how deep."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pgchannels.codec import envelope, json_format, msgpack_format
from pgchannels.codec.carriable import Default
from pgchannels.codec.encryption import Keyring
from pgchannels.codec.envelope import Kind
from pgchannels.codec.headers import pack_headers, require_headers
from pgchannels.codec.plain import LARGEST_MESSAGE_BYTES
from pgchannels.errors import InvalidMessage, MessageTooLarge, UnreadableMessage
from pgchannels.messages import NO_HEADERS, Header
from pgchannels.serializers import registry

__all__ = ["LARGEST_MESSAGE_BYTES", "Codec"]


class Codec:
    """Packs payloads into envelopes, sealed if there are keys, and opens them. Reads every format, writes one."""

    def __init__(
        self,
        keys: Sequence[str | bytes] = (),
        *,
        serializer_format: str = "msgpack",
        default: Default | None = None,
    ) -> None:
        self._default = default
        self._keyring = Keyring(keys) if keys else None
        self._format = serializer_format
        self.is_sealing: bool = self._keyring is not None

    def encode(self, payload: Any, *, bound_to: str, headers: Mapping[str, Header] | None = None) -> bytes:
        """Return the envelope that carries a payload and headers. A sealed one opens only for the same `bound_to`.

        :raises InvalidMessage: the payload or the headers hold a value that no message can carry.
        :raises MessageTooLarge: the payload takes more than `LARGEST_MESSAGE_BYTES`, or the headers take too much.
        """
        plain = self._pack(payload)
        if len(plain) > LARGEST_MESSAGE_BYTES:
            raise MessageTooLarge(
                f"the message takes {len(plain):,} bytes, {LARGEST_MESSAGE_BYTES:,} are the most: send it in parts"
            )
        if headers is not None and (packed := pack_headers(headers)):
            plain = envelope.wrap_headed(envelope.wrap(Kind.MSGPACK, packed), plain)
        if self._keyring is None:
            return plain
        return envelope.wrap(Kind.SEALED, self._keyring.seal(plain, bound_to=bound_to))

    def open(self, sealed: bytes, *, bound_to: str, may_be_plain: Callable[[], bool] = lambda: False) -> bytes:
        """Return the plain envelope inside a sealed one; without keys, the envelope itself.

        Anybody who writes to the log could forge a plain one: with keys it is refused, unless `may_be_plain` allows
        it.

        :raises UnreadableMessage: the envelope is plain although there are keys, or no key opens it.
        """
        if self._keyring is None:
            return sealed
        _, content = envelope.unwrap(sealed)
        if envelope.is_sealed(sealed):
            return self._keyring.unseal(content, bound_to=bound_to)
        if may_be_plain():  # asked only then: most are sealed
            return sealed
        raise UnreadableMessage(
            "the message is not encrypted, but symmetric_encryption_keys are configured here; unsealed_topics lists the"
            " topics in which such messages are accepted, as SQL sends them"
        )

    def decode(self, plain: bytes) -> Any:
        """Return a new copy of the payload in a plain envelope.

        :raises UnreadableMessage: the envelope is sealed, damaged, of a newer version, or in an unregistered format.
        """
        kind, content = envelope.unwrap(plain)
        if kind is Kind.MSGPACK:
            return msgpack_format.unpack(content)
        if kind is Kind.PLAIN_JSON:
            return json_format.unpack_plain(content)
        if kind is Kind.HEADED:
            return self.decode(envelope.unwrap_headed(content)[1])
        if kind is Kind.JSON:
            return json_format.unpack(content)
        if kind is Kind.NAMED:
            return _unpack_registered(content)
        if self.is_sealing:
            raise UnreadableMessage("the message is damaged: it is sealed twice")
        raise UnreadableMessage("the message is encrypted, but no symmetric_encryption_keys are configured here")

    def headers(self, plain: bytes) -> Mapping[str, Header]:
        """Return the headers in a plain envelope.

        :raises UnreadableMessage: they are damaged.
        """
        if not envelope.is_headed(plain):
            return NO_HEADERS
        headers, _ = envelope.unwrap_headed(envelope.unwrap(plain)[1])
        return require_headers(self.decode(headers))

    def _pack(self, payload: Any) -> bytes:
        if self._format == "msgpack":
            return envelope.wrap(Kind.MSGPACK, self._packed(msgpack_format.pack, payload))
        if self._format == "json":
            return envelope.wrap(Kind.JSON, self._packed(json_format.pack, payload))
        serializer = registry.get(self._format)
        assert serializer is not None  # the options have checked it, and no format is ever removed
        packed = serializer.as_bytes(payload)
        if not isinstance(packed, bytes | bytearray):
            kind = type(packed).__name__
            raise InvalidMessage(
                f"the serializer {self._format!r} returned {kind} from as_bytes(): it must return bytes"
            )
        return envelope.wrap_named(self._format, bytes(packed))

    def _packed(self, pack: Callable[[Any, Default | None], bytes], payload: Any) -> bytes:
        try:
            return pack(payload, self._default)
        except RecursionError as error:
            raise InvalidMessage("the message is nested deeper than the caller's stack has room for") from error


def _unpack_registered(content: memoryview) -> Any:
    name, packed = envelope.unwrap_named(content)
    serializer = registry.get(name)
    if serializer is None:
        raise UnreadableMessage(f"the message has the format {name!r}, which is not registered in this process")
    try:
        return serializer.from_bytes(packed)
    except Exception as error:  # whatever the user's class raises: skip the message, keep the layer going
        raise UnreadableMessage(f"the serializer {name!r} cannot read the message: {type(error).__name__}") from error
