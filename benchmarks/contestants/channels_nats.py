"""channels-nats."""

from typing import Any

from channels_nats import NatsChannelLayer

from benchmarks.contestants.channels_layer import ChannelsLayer


class ChannelsNats(ChannelsLayer):
    """Core NATS: nothing is stored."""

    def make_layer(self) -> Any:
        return NatsChannelLayer(servers=self.addresses.nats, capacity=self.capacity)
