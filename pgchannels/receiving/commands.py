"""Obeys commands from other nodes."""

from pgchannels.codec.commands import Flush, Join, Leave, command_in
from pgchannels.errors import InvalidName, UnreadableMessage
from pgchannels.names import require_valid_channel, require_valid_topic, topic_address
from pgchannels.receiving.catch_up import CatchUp
from pgchannels.receiving.channels import Channels
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.needs import Reports
from pgchannels.receiving.payloads import Opened, PayloadReader
from pgchannels.receiving.queues import Queues
from pgchannels.receiving.router import Router


class Commands:
    """Obeys for one node: commands arrive through the log, in order with messages."""

    def __init__(
        self,
        prefix: str,
        payloads: PayloadReader,
        router: Router,
        hosting: Hosting,
        catch_up: CatchUp,
        channels: Channels,
        queues: Queues,
        reports: Reports,
    ) -> None:
        self._prefix = prefix
        self._topics = topic_address(prefix, "")
        self._payloads = payloads
        self._router, self._hosting, self._catch_up = router, hosting, catch_up
        self._channels, self._queues, self._reports = channels, queues, reports

    def obey(self, opened: Opened) -> None:
        """Obey a command to this node; one that cannot be obeyed is counted as unreadable."""
        position = opened.arrival.id
        try:
            match command_in(opened.payload):
                case Join(address, channel):
                    self._join(self._topic_address(address), require_valid_channel(channel), position)
                case Leave(address, channel):
                    self._channels.leave(address, channel, at=position)
                case Flush():
                    self._channels.clear()
                    self._queues.clear(until=position)
                    self._reports.note_flushed(position)
        except UnreadableMessage as error:
            self._payloads.note_unreadable(str(error))
        except InvalidName:
            self._payloads.note_unreadable("ignored a command with an impossible name")

    def _join(self, address: str, channel: str, position: int) -> None:
        is_heard = self._hosting.hosts(address) and self._router.brings(address, after=position)
        self._channels.join(address, channel, after=position, obeyed_until=position)
        if not is_heard:
            self._hosting.want(address, is_marked=True)
            self._catch_up.read(address)

    def _topic_address(self, address: str) -> str:
        """Return the address if it belongs to a topic with this layer's prefix."""
        if not address.startswith(self._topics):
            raise InvalidName(f"{address:.200} is no topic of this layer")
        return topic_address(self._prefix, require_valid_topic(address.removeprefix(self._topics)))
