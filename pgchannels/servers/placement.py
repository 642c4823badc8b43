"""Which server carries an address: rendezvous hashing of names, and pinned topics."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, TypeAlias

from pgchannels.arguments import refusal, shown
from pgchannels.errors import ConfigurationError
from pgchannels.names import is_topic_address, topic_of_address
from pgchannels.options import expression, require_pattern

_REMEMBERED: Final = 10_000  # addresses

Pins: TypeAlias = Mapping[str | re.Pattern[str], str]


def rendezvous(servers: Iterable[str], address: str) -> str:
    """Return the server that carries an address: the one whose name and the address have the greatest hash.

    The hash is BLAKE2b with 8 bytes, of the server's name, a line feed and the address, all in UTF-8. So every process
    and every version comes to the same result, whatever the order of the servers; and a server that is added takes its
    share of the addresses evenly from all others, which keep the rest.
    """
    return max(servers, key=lambda server: (blake2b(f"{server}\n{address}".encode(), digest_size=8).digest(), server))


class Placement:
    """Where messages are sent to, and where they are received from.

    :param servers: the names of those that are sent to; the first also stands for positions that name no server.
    :param also: the names among which addresses were, or will be, placed by other processes: receive from there, too.
    :param pinned: servers by patterns of topics; the first pattern that matches counts.
    :param also_pinned: the same by other processes, if that differs.
    :raises ConfigurationError: a topic is pinned to a server that is not there.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        also: Sequence[str] = (),
        pinned: Pins | None = None,
        also_pinned: Pins | None = None,
    ) -> None:
        self.names: tuple[str, ...] = tuple(dict.fromkeys((*servers, *also)))
        self._servers, self._also = tuple(servers), tuple(also or servers)
        self._pinned = _require_pins("pinned", pinned, servers)
        self._also_pinned = (
            self._pinned if also_pinned is None else _require_pins("also_pinned", also_pinned, self._also)
        )
        self.server_of: Callable[[str], str] = lru_cache(_REMEMBERED)(self._server_of)
        self.servers_of: Callable[[str], tuple[str, ...]] = lru_cache(_REMEMBERED)(self._servers_of)

    def is_sent_to(self, server: str) -> bool:
        """Whether addresses are placed on a server, and not only received from there."""
        return server in self._servers

    def _server_of(self, address: str) -> str:
        """Return the server to which messages for an address are sent."""
        return _pin(self._pinned, address) or rendezvous(self._servers, address)

    def _servers_of(self, address: str) -> tuple[str, ...]:
        """Return the servers from which an address is received; the one that is sent to comes first.

        Channels and work queues are received from all: a group on any server may bring them messages.
        """
        here = self._server_of(address)
        if not is_topic_address(address):
            return tuple(dict.fromkeys((here, *self.names)))
        there = _pin(self._also_pinned, address) or rendezvous(self._also, address)
        return (here,) if here == there else (here, there)


def _pin(pins: Pins, address: str) -> str | None:
    if not pins or not is_topic_address(address):
        return None
    topic = topic_of_address(address)
    return next((server for pattern, server in pins.items() if expression(pattern).match(topic)), None)


def _require_pins(argument: str, pinned: object, names: Sequence[str]) -> Pins:
    if pinned is None:
        return {}
    if not isinstance(pinned, Mapping):
        raise refusal(argument, pinned, "a dict of patterns of topics and names of servers, such as {'orders.*': 'a'}")
    pins = {require_pattern(key, f"a key of {argument}"): pinned[key] for key in pinned}
    for pattern, server in pins.items():
        if not isinstance(server, str) or server not in names:
            raise ConfigurationError(
                f"{argument}[{shown(pattern)}] names the server {shown(server)}, and the servers are {', '.join(names)}"
            )
    return pins
