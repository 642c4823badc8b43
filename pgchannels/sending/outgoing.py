"""A message on its way, and what makes one of the arguments of a verb."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pgchannels.arguments import TEN_YEARS, require_pairs, require_seconds, require_text
from pgchannels.codec import Codec
from pgchannels.messages import Header
from pgchannels.names import channel_address, require_valid_topic, topic_address
from pgchannels.options import Options

_LONGEST_KEY: Final = 200


@dataclass(slots=True)
class Outgoing:
    """A message for an address.

    `channel` is the channel of a node that gets it; for a message to a topic, the one that does not. The backlog sets
    the last three: `sent` gets the id once the message is committed.
    """

    address: str
    channel: str | None
    envelope: bytes
    capacity: int | None = None  # how many messages may wait in the queue; of a channel, None if it has room
    key: str | None = None
    expiry_seconds: float | None = None  # None: as the layer's
    deadline: float = 0.0
    size: int = 0
    sent: "asyncio.Future[int]" = field(init=False)


class Packer:
    """Addresses payloads, and packs them into envelopes."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._codec = Codec(
            options.symmetric_encryption_keys, serializer_format=options.serializer_format, default=options.default
        )

    def to_topic(
        self,
        topic: str,
        payload: Any,
        *,
        headers: Mapping[str, Header] | None = None,
        key: str | None = None,
        expiry: float | None = None,
        exclude: str | None = None,
    ) -> Outgoing:
        """Return a message to a topic.

        :param key: while the log keeps this message, another one to the topic with this key is not delivered.
        :param expiry: in seconds, None for the layer's.
        :param exclude: a channel that does not get the message.
        :raises InvalidMessage: the payload or the headers hold a value that no message can carry.
        :raises MessageTooLarge: the payload takes more than 64 MiB, or the headers more than 4096 bytes.
        :raises ConfigurationError: the key or the expiry is impossible.
        """
        address = topic_address(self._options.prefix, topic)
        bound_to = address if exclude is None else f"{address} {exclude}"
        envelope = self._codec.encode(payload, bound_to=bound_to, headers=headers)
        if key is not None:
            key = require_text("key", key, most=_LONGEST_KEY)
        most = self._options.retention
        seconds = None if expiry is None else require_seconds("expiry", expiry, most=most)
        return Outgoing(address, exclude, envelope, None, key, seconds)

    def to_topics(self, messages: Iterable[tuple[str, Any]]) -> list[Outgoing]:
        """Return messages for pairs of a topic and a payload; raises as `to_topic`."""
        pairs = require_pairs("messages", messages, of="a topic and a payload")
        checked = [(require_valid_topic(topic), payload) for topic, payload in pairs]
        return [self.to_topic(topic, payload) for topic, payload in checked]

    def to_channel(
        self, channel: str, payload: Any, *, headers: Mapping[str, Header] | None = None, expiry: float | None = None
    ) -> Outgoing:
        """Return a message to a channel of any node, or to a queue; parameters and errors as for `to_topic`."""
        address, local_channel = channel_address(self._options.prefix, channel)
        bound_to = address if local_channel is None else f"{address} {local_channel}"
        envelope = self._codec.encode(payload, bound_to=bound_to, headers=headers)
        capacity = self._options.capacity_of(channel)
        # What waits in a queue is kept for longer than the log, if need be.
        most = self._options.retention if local_channel is not None else TEN_YEARS
        seconds = None if expiry is None else require_seconds("expiry", expiry, most=most)
        return Outgoing(address, local_channel, envelope, capacity, None, seconds)
