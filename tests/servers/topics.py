"""Names by the server that carries them."""

from collections.abc import Sequence
from typing import Final

from pgchannels.servers.placement import rendezvous


def name_on(server: str, *, of: str = "topic", among: Sequence[str] = ("a", "b"), name: str = "room") -> str:
    """Return a topic, or a queue, that these servers carry on one of them."""
    names = (f"{name}.{number}" for number in range(1000))
    return next(one for one in names if rendezvous(among, f"{of}:asgi:{one}") == server)


ON_A: Final = name_on("a")
ON_B: Final = name_on("b")
