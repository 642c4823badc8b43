"""A TCP proxy in front of a PostgreSQL server, with the faults of a network at hand."""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Literal, Self, cast

from sqlalchemy import make_url

Direction = Literal["to_server", "to_client"]

_BOTH: Final[tuple[Direction, ...]] = ("to_server", "to_client")
_LOOPBACK: Final = "127.0.0.1"
_LONGEST_PAUSE_SECONDS: Final = 0.02  # a slow connection passes on what it may pass in this time, then pauses
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards a port of its own on the loopback to the server of a URL; `url` is that URL through the proxy.

    All verbs act at once. `restore` undoes them all.
    """

    def __init__(self, server_url: str) -> None:
        self._server_url = make_url(server_url)
        self._links: dict[_Link, None] = {}  # in the order of their beginning
        self._beginning: set[asyncio.Task[None]] = set()
        self._reservation: socket.socket | None = None
        self._listening: socket.socket | None = None
        self._freezes_new: tuple[Direction, ...] = ()
        self._bytes_per_second: float | None = None
        self._freezes_at: set[bytes] = set()
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        # Bound for as long as the proxy is there, and never listening: nobody else gets the port while it is refused.
        self._reservation = _bound_socket(0)
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        gone = [link.drop() for link in self._links]
        await asyncio.gather(*self._beginning, *gone)
        if self._reservation is not None:
            self._reservation.close()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1; it stays the same while connections are refused."""
        assert self._reservation is not None, "enter the proxy first: `async with Proxy(…) as proxy`"
        return int(self._reservation.getsockname()[1])

    @property
    def url(self) -> str:
        """The server's URL with the proxy as its host."""
        elsewhere = {name: value for name, value in self._server_url.query.items() if name not in {"host", "port"}}
        url = self._server_url.set(host=_LOOPBACK, port=self.port, query=elsewhere)
        return url.render_as_string(hide_password=False)

    def cut(self) -> None:
        """Reset every client's connection; the server sees its end after what is on its way, also if that is frozen."""
        for link in self._links:
            link.client.reset()

    def refuse(self) -> None:
        """Refuse new connections, as a machine does where nobody listens; those that there are stay."""
        listening, self._listening = self._listening, None
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()

    def freeze(self, *directions: Direction, new_connections: bool = True) -> None:
        """Accept everything, forward nothing and close nothing, as a peer that was unplugged; by default both ways.

        What comes meanwhile is held. Without `new_connections` only the connections that there are now freeze.
        """
        directions = directions or _BOTH
        for link in self._links:
            link.freeze(directions)
        if new_connections:
            self._freezes_new = directions

    def freeze_at(self, *contents: bytes) -> None:
        """Freeze one direction of one connection for each content: where it comes next, with the content held."""
        self._freezes_at.update(contents)

    def slow(self, bytes_per_second: float) -> None:
        """Forward no more than this on each connection, each way."""
        self._bytes_per_second = bytes_per_second
        for flow in self._flows():
            flow.bytes_per_second = bytes_per_second

    def restore(self, *, held: Literal["forward", "drop"] = "forward") -> None:
        """End every fault; forward what was held, in order, also for clients that are gone by now.

        With `held="drop"` connections that hold anything are reset instead, and what they hold never arrives.
        """
        self._freezes_new, self._bytes_per_second = (), None
        self._freezes_at.clear()
        for link in list(self._links):
            if held == "drop" and link.is_holding:
                link.drop()
            link.thaw()
        if self._listening is None:
            self._listen()

    async def holding(self, content: bytes) -> None:
        """Return once a frozen connection holds something with this content."""
        while not any(content in flow.held for flow in self._flows()):
            self._arrived.clear()
            await self._arrived.wait()

    async def settled(self) -> None:
        """Return once the server has ended the sessions of clients that are gone, and done all that they asked for."""
        await asyncio.gather(*[link.gone for link in self._links if link.client.is_lost])

    def _listen(self) -> None:
        listening = self._listening = _bound_socket(self.port)
        listening.listen()
        # Not an asyncio server: closed while it accepts, that forgets the socket and its protocol.
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        try:
            client, _ = listening.accept()
        except OSError:
            return  # the client has given up already
        beginning = asyncio.create_task(self._begin(self._new_link(), client), name="proxy connect")
        self._beginning.add(beginning)
        beginning.add_done_callback(self._beginning.discard)

    def _new_link(self) -> "_Link":
        link = _Link(on_arrival=self._note_arrival)
        link.freeze(self._freezes_new)
        link.to_server.bytes_per_second = link.to_client.bytes_per_second = self._bytes_per_second
        self._links[link] = None
        link.gone.add_done_callback(lambda _: self._links.pop(link))
        return link

    async def _begin(self, link: "_Link", client: socket.socket) -> None:
        loop, server = asyncio.get_running_loop(), self._server_url
        await loop.connect_accepted_socket(lambda: link.client, client)
        try:
            if directory := server.query.get("host"):
                path = f"{directory}/.s.PGSQL.{server.query.get('port', 5432)}"
                await loop.create_unix_connection(lambda: link.server, path)
            else:
                await loop.create_connection(lambda: link.server, server.host or "localhost", server.port or 5432)
        except OSError as error:
            link.server.connection_lost(error)

    def _note_arrival(self, flow: "_Flow") -> None:
        if found := {content for content in self._freezes_at if content in flow.held}:
            self._freezes_at -= found
            flow.is_frozen = True
        self._arrived.set()

    def _flows(self) -> "Iterator[_Flow]":
        for link in self._links:
            yield from (link.to_server, link.to_client)


class _Link:
    """One client's connection and the one to the server behind it."""

    def __init__(self, *, on_arrival: "Callable[[_Flow], None]") -> None:
        # The server's end stays until the server closes it: so it is known when the server is done with a gone client.
        self.to_server = _Flow(on_arrival, closes_destination=False)
        self.to_client = _Flow(on_arrival, closes_destination=True)
        self.client = _End(inwards=self.to_server, outwards=self.to_client, on_lost=self._check_gone)
        self.server = _End(inwards=self.to_client, outwards=self.to_server, on_lost=self._check_gone)
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_holding(self) -> bool:
        return self.to_server.is_holding or self.to_client.is_holding

    def freeze(self, directions: tuple[Direction, ...]) -> None:
        for direction in directions:
            flow: _Flow = getattr(self, direction)
            flow.is_frozen = True

    def thaw(self) -> None:
        for flow in (self.to_server, self.to_client):
            flow.thaw()

    def drop(self) -> asyncio.Future[None]:
        """Reset both ends and forget what is held; the future tells when they are gone."""
        for flow in (self.to_server, self.to_client):
            flow.drop()
        for end in (self.client, self.server):
            end.reset()
        return self.gone

    def _check_gone(self) -> None:
        if self.client.is_lost and self.server.is_lost and not self.gone.done():
            self.gone.set_result(None)


class _End(asyncio.Protocol):
    """One socket of a link: what it receives goes into one flow, what it sends comes out of the other."""

    def __init__(self, *, inwards: "_Flow", outwards: "_Flow", on_lost: Callable[[], None]) -> None:
        self.is_lost = False
        self._is_reset = False
        self._inwards = inwards
        self._outwards = outwards
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._outwards.begin(self._transport)
        if self._is_reset:
            self.reset()

    def data_received(self, data: bytes) -> None:
        self._inwards.take(data)

    def connection_lost(self, error: BaseException | None) -> None:
        self._transport = None
        self.is_lost = True
        self._inwards.end()
        self._on_lost()

    def reset(self) -> None:
        self._is_reset = True
        if self._transport is None:
            return
        with suppress(OSError):
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()


class _Flow:
    """One direction of a link: holds what came in until it may go out."""

    def __init__(self, on_arrival: "Callable[[_Flow], None]", *, closes_destination: bool) -> None:
        self.held = bytearray()
        self.is_frozen = False
        self.bytes_per_second: float | None = None
        self._on_arrival = on_arrival
        self._closes_destination = closes_destination
        self._has_ended = False
        self._destination: asyncio.Transport | None = None
        self._pause: asyncio.TimerHandle | None = None

    @property
    def is_holding(self) -> bool:
        return self.is_frozen and (bool(self.held) or self._has_ended)

    def begin(self, destination: asyncio.Transport) -> None:
        self._destination = destination
        self.pass_on()

    def take(self, data: bytes) -> None:
        self.held += data
        self._on_arrival(self)
        self.pass_on()

    def end(self) -> None:
        self._has_ended = True
        self.pass_on()

    def pass_on(self) -> None:
        if self.is_frozen or self._pause is not None or self._destination is None:
            return
        if self.held:
            self._write(self._destination)
        if self._has_ended and not self.held:
            self._end_destination(self._destination)

    def thaw(self) -> None:
        self.is_frozen, self.bytes_per_second = False, None
        self._end_pause()
        self.pass_on()

    def drop(self) -> None:
        self.held.clear()
        self._end_pause()

    def _write(self, destination: asyncio.Transport) -> None:
        speed = self.bytes_per_second
        size = len(self.held) if speed is None else max(1, int(speed * _LONGEST_PAUSE_SECONDS))
        piece = bytes(self.held[:size])
        del self.held[:size]
        if not destination.is_closing():
            destination.write(piece)
        if speed is not None:
            self._pause = asyncio.get_running_loop().call_later(len(piece) / speed, self._resume)

    def _end_destination(self, destination: asyncio.Transport) -> None:
        if self._closes_destination:
            destination.close()
        elif not destination.is_closing():
            with suppress(OSError):  # the server has just reset it
                destination.write_eof()

    def _resume(self) -> None:
        self._pause = None
        self.pass_on()

    def _end_pause(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None


def _bound_socket(port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((_LOOPBACK, port))
    except OSError:
        bound.close()
        raise
    return bound
