"""pgchannels as the layer of Django Channels."""

from typing import Any

from benchmarks.contestants.channels_layer import ChannelsLayer
from pgchannels.django import PostgresChannelLayer


class PgchannelsChannels(ChannelsLayer):
    """Never opened by hand, as in Django: a process that only sends borrows the background sender."""

    options: dict[str, Any] = {}  # noqa: RUF012 -- settings of the class, never changed

    def make_layer(self) -> Any:
        return PostgresChannelLayer(self.addresses.postgres, capacity=self.capacity, **self.options)


class PgchannelsSealed(PgchannelsChannels):
    """The same with encryption."""

    options = {"symmetric_encryption_keys": ["a key for the benchmark"]}  # noqa: RUF012
