"""Seals envelopes with AES-256-GCM; the first key seals, all keys open."""

import os
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pgchannels.errors import UnreadableMessage

_KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12


class Keyring:
    """The keys of a layer. A sealed envelope consists of key id, nonce, ciphertext and tag."""

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        secrets = [_derive(key.encode() if isinstance(key, str) else key) for key in keys]
        self._ciphers = {_key_id(secret): AESGCM(secret) for secret in secrets}
        self._first = next(iter(self._ciphers))

    def seal(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt; only the same `bound_to` decrypts, so a row moved elsewhere stays closed."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._first + nonce + self._ciphers[self._first].encrypt(nonce, plain, bound_to.encode())

    def unseal(self, sealed: memoryview, *, bound_to: str) -> bytes:
        """Decrypt.

        :raises UnreadableMessage: no key fits, the bytes were changed, or they were sealed for another place.
        """
        cipher = self._ciphers.get(bytes(sealed[:_KEY_ID_BYTES]))
        if cipher is None:
            raise UnreadableMessage("none of symmetric_encryption_keys fits the message")
        nonce, ciphertext = sealed[_KEY_ID_BYTES:][:_NONCE_BYTES], sealed[_KEY_ID_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, ciphertext, bound_to.encode())
        except (InvalidTag, ValueError) as error:
            raise UnreadableMessage("the message was changed, or was sealed for another topic or channel") from error


def _derive(key: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=b"pgchannels envelope").derive(key)


def _key_id(secret: bytes) -> bytes:
    digest = Hash(SHA256())
    digest.update(secret)
    return digest.finalize()[:_KEY_ID_BYTES]
