"""Notifications and envelopes that no pgchannels wrote, at random: a seed gives the same ones again."""

import random
import string
from binascii import b2a_base64
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from pgchannels.codec import Codec

_LETTERS: Final = string.ascii_letters + string.digits + "+/=:!-_. "
_WIDE: Final = "é߷→語𝔊\u200b\ufeff\n\t\x01\x7f"
_LONGEST_TEXT: Final = 300
_IMPOSSIBLE_NUMBERS: Final = (
    "",
    "-1",
    "1e9",
    "0x1",
    "∞",
    "12a",
    "1.5",
    str(2**63),
    str(2**64),
    *("9" * digits for digits in (30, 400, 5_000)),
)


class MalformedNotifications:
    """Texts that a node must count and pass over: each is unlike all others, so that PostgreSQL folds none."""

    def __init__(self, seed: int, genuine: str) -> None:
        self._random = random.Random(seed)
        self._fields = genuine.split(" ")
        self._numbers = count()

    def take(self, amount: int) -> list[str]:
        """The next ones."""
        kinds = (self._noise, self._unknown_kind, self._impossible_number, self._wrong_fields, self._damaged_body)
        return [self._random.choice(kinds)(f"#{next(self._numbers)}") for _ in range(amount)]

    def _noise(self, tag: str) -> str:
        alphabet = self._random.choice((_LETTERS, _LETTERS + _WIDE, _WIDE))
        return tag + "".join(self._random.choices(alphabet, k=self._random.randrange(_LONGEST_TEXT)))

    def _unknown_kind(self, tag: str) -> str:
        kind = self._random.choice(("", "M", "mm", "m\t", "Q", "x", "\x01", "é", "m2"))
        return " ".join([kind, *self._fields[1:], tag])

    def _impossible_number(self, tag: str) -> str:
        fields = self._fields.copy()
        fields[self._random.choice((1, 3))] = self._random.choice(_IMPOSSIBLE_NUMBERS)
        return " ".join([*fields[:4], tag, *fields[5:]])

    def _wrong_fields(self, tag: str) -> str:
        fields = self._fields[: self._random.randrange(1, 5)]
        more = self._fields + ["more"] * self._random.randrange(5)
        return " ".join([*self._random.choice((fields, more)), tag])

    def _damaged_body(self, tag: str) -> str:
        return " ".join([*self._fields[:4], tag, self._random.choice(("é", "A", "AAAAA", "A===", "語" * 50))])


def malformed_envelopes(seed: int) -> Iterator[bytes]:
    """Stored bytes of which hardly any can be read; without end."""
    source = random.Random(seed)
    good = Codec().encode({"text": "hello", "numbers": [1, 2.5, None]}, bound_to="topic:asgi:room")
    sealed = Codec(["a key that nobody has"]).encode("hi", bound_to="topic:asgi:room")
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: b"",
        lambda: source.randbytes(source.randrange(1, 200)),
        lambda: bytes([source.randrange(4, 256)]) + good[1:],  # of a newer version
        lambda: good[: source.randrange(len(good))],
        lambda: good + source.randbytes(source.randrange(1, 9)),
        lambda: b"\x01" + b"\x91" * source.randrange(1_000, 100_000),
        lambda: b"\x01" + b"\x81\xa1t\xd4" + bytes([source.randrange(128)]) + b"\x00",  # a type of somebody's own
        lambda: b"\x01" + b"\xdd\xff\xff\xff\xff",  # a list of four thousand million items
        lambda: b"\x01\x81\x01\x02",  # a key that is no text
        lambda: b"\x02" + source.choice((b"", b"{", b"[1,]", b"\xff\xfe", b"[" * 50_000, b"nul", b"9" * 5_000)),
        lambda: sealed,
        lambda: b"\x03" + source.randbytes(source.randrange(60)),
        lambda: b64_of(good),
    )
    while True:
        yield source.choice(kinds)()


def b64_of(envelope: bytes) -> bytes:
    """An envelope that was encoded once too often."""
    return b2a_base64(envelope)
