"""Server-Sent Events for Starlette and FastAPI, on sse-starlette."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message as AsgiMessage
from starlette.types import Receive, Scope, Send

from pgchannels.arguments import DAY, require_seconds
from pgchannels.messages import Message
from pgchannels.subscription import Subscription
from pgchannels.web.encoding import as_dict
from pgchannels.web.entering import enter
from pgchannels.web.event_stream import HEADERS, MEDIA_TYPE, EventOptions, event_stream, resume

try:
    from sse_starlette.sse import EventSourceResponse, SendTimeoutError
except ImportError as _missing:
    raise ImportError(
        "pgchannels.starlette.events needs the library sse-starlette: pip install 'pgchannels[sse]'"
    ) from _missing

_END_SECONDS: Final = 1


def event_source(
    request: Request,
    subscription: Subscription,
    *,
    encode: Callable[[Message], Any] = as_dict,
    ping: float = 15,
    retry: float | None = None,
    send_timeout: float = 30,
) -> Response:
    """Return a response that sends a subscription as Server-Sent Events until the client leaves or the server stops.

    A browser that reconnects sends the id of the last event, as `Last-Event-ID`. The subscription then begins after it,
    whatever its `since` was, so nothing is missed and nothing comes twice, in none of its topics. A client that falls
    behind the subscription's capacity is disconnected, and gets the rest when it is back. Where messages are lost for
    good, it gets an event `gap` with `{"reason": str, "count": int | None}`, unless the subscription has an `on_gap`.

    The subscription is entered before the response begins, so that `exception_handlers` can answer its errors.

    :param encode: turns a message into the data of an event: str as it is, anything else as JSON, as in
        `websocket_messages`.
    :param ping: seconds; after a silence of this length the client gets a comment, or an event `since` with the id to
        resume from.
    :param retry: seconds that a browser waits before it reconnects; by default, its own choice of some seconds.
    :param send_timeout: seconds; a client that accepts nothing for this long is disconnected.
    :raises InvalidPosition: the `Last-Event-ID` is none that an event had.
    :raises ConfigurationError: an option has an impossible value.
    """
    options = EventOptions.checked(encode=encode, ping=ping, retry=retry)
    send_timeout = require_seconds("send_timeout", send_timeout, most=DAY)
    resume(subscription, request.headers)
    if request.method == "HEAD":
        return Response(headers=HEADERS, media_type=MEDIA_TYPE)
    return _EventSource(subscription, options, send_timeout=send_timeout)


class _EventSource(EventSourceResponse):
    """Adds to sse-starlette, which ends it with the client or the server: a subscription, and an end in order."""

    def __init__(self, subscription: Subscription, options: EventOptions, *, send_timeout: float) -> None:
        self._subscription = subscription
        self._events = event_stream(subscription, options)
        # Not with its ping, which could overtake an event: the id of a silent stream must not.
        super().__init__(self._events, headers=HEADERS, ping=0, send_timeout=send_timeout)
        del self.headers["Connection"]  # HTTP/2 has no such header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = _Sending(send)
        if not await enter(self._subscription, client_leaves=_left(receive)):
            return
        async with AsyncExitStack() as stack:
            stack.push_async_exit(self._subscription)
            await stack.enter_async_context(aclosing(self._events))
            with suppress(SendTimeoutError):
                await super().__call__(scope, receive, sending)
        await sending.end()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Sending:
    """Knows whether a response has ended: sse-starlette leaves it open when it stops for the server."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._is_open = False

    async def __call__(self, message: AsgiMessage) -> None:
        await self._send(message)
        self._is_open = message.get("more_body", True)

    async def end(self) -> None:
        """End the response, unless that was done; a client that accepts nothing does not hold this up."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(_END_SECONDS):
                if self._is_open:
                    await self._send({"type": "http.response.body", "body": b"", "more_body": False})
