"""The layer in memory that comes with Channels: for one event loop of one process."""

from typing import Any

from channels.layers import InMemoryChannelLayer

from benchmarks.contestants.channels_layer import ChannelsLayer


class InMemory(ChannelsLayer):
    """No server, no second process."""

    def make_layer(self) -> Any:
        return InMemoryChannelLayer(capacity=self.capacity)
