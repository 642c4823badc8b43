"""The messages that are sent: the same for everybody."""

import itertools
import time
from collections.abc import Iterator

import msgpack

from benchmarks.contestants.contestant import Message

SMALL_BYTES = 200
LARGE_BYTES = 4_000


def messages(size: int) -> Iterator[Message]:
    """Messages of so many bytes in msgpack, each with its number and the moment at which it is made."""
    text = "x" * (size - len(msgpack.packb(_message(2**31, ""))))
    text = text[:-2] if len(text) > 255 else text[:-1] if len(text) > 31 else text  # msgpack's length of the text
    return (_message(number, text) for number in itertools.count(2**31))


def last_of(count: int) -> Message:
    """A message that says how many came before it."""
    return {"type": "benchmark.last", "number": count, "sent_at": time.perf_counter()}


def is_last(message: Message) -> bool:
    """Whether it is such a message."""
    return bool(message["type"] == "benchmark.last")


def _message(number: int, text: str) -> Message:
    # The clock is the same in all processes of a machine.
    return {"type": "benchmark.message", "number": number, "sent_at": time.perf_counter(), "text": text}
