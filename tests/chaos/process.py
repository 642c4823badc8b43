"""What every process of the run has: a part to play, a layer behind its proxy, a journal, orders that come by stdin."""

import asyncio
import json
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pgchannels import MessageLayer
from pgchannels.database.failures import is_passing
from tests.chaos.journal import Journal
from tests.chaos.sender import Sender

_TRY_AGAIN_SECONDS = 0.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a process is told at its start. With `since`, a subscriber resumes from these positions of its targets."""

    name: str
    urls: Mapping[str, str]  # by server
    journal: str
    began: float
    seed: str
    options: dict[str, Any]  # of the layer
    topics: Sequence[str]
    queue: str
    claimed: str
    since: Mapping[str, str] | None = None

    @property
    def database(self) -> str | Mapping[str, str]:
        """What the layer is given: the servers, or the only one, which has no name."""
        return self.urls.get("", self.urls)

    def to_json(self) -> str:
        """The text that `play` reads."""
        return json.dumps(asdict(self))


class Player:
    """A process that plays its part."""

    def __init__(self, part: Part, layer: MessageLayer, journal: Journal) -> None:
        self.part = part
        self.layer = layer
        self.journal = journal
        self.sender = Sender(part.name, layer, journal)
        self.random = random.Random(part.seed)
        self.channels: list[str] = []  # that one may send to, and add to groups
        self.ordered = asyncio.Event()
        self.finished = asyncio.Event()

    def report(self, event: str, content: str = "") -> None:
        """Tell whoever runs this process."""
        print(json.dumps([event, content]), flush=True)

    async def follow_orders(self) -> None:
        """Take the channels that one may send to, until there are no more orders: then finish."""
        loop, orders = asyncio.get_running_loop(), asyncio.StreamReader()
        pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        with closing(pipe):
            while line := await orders.readline():
                self.channels = json.loads(line)
                self.ordered.set()
        self.finished.set()


def play(role: Callable[[Player], Awaitable[None]]) -> None:
    """Play the part that the first argument gives, in a role, until it is done or SIGTERM comes."""
    part = Part(**json.loads(sys.argv[1]))
    with suppress(asyncio.CancelledError):
        asyncio.run(_play(part, role))


async def _play(part: Part, role: Callable[[Player], Awaitable[None]]) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    layer = MessageLayer(part.database, **part.options)
    with closing(Journal(Path(part.journal), began=part.began)) as journal:
        player = Player(part, layer, journal)
        async with asyncio.TaskGroup() as following:
            orders = following.create_task(player.follow_orders(), name="orders")
            await surely(layer.open)
            try:
                await role(player)
            finally:
                orders.cancel()
                await layer.close()


async def surely(connect: Callable[[], Awaitable[T]]) -> T:
    """Connect, trying as often as it takes while the database is away."""
    while True:
        try:
            return await connect()
        except Exception as error:
            if not is_passing(error):
                raise
        await asyncio.sleep(_TRY_AGAIN_SECONDS)
