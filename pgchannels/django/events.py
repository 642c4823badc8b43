"""Server-Sent Events for Django, from an asynchronous view."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal

from channels.layers import get_channel_layer
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from pgchannels.arguments import DAY, require_seconds, shown
from pgchannels.django.layer import PostgresChannelLayer
from pgchannels.errors import ConfigurationError, DatabaseUnavailable, InvalidName, InvalidPosition, LayerClosed
from pgchannels.messages import Message, Position, Positions
from pgchannels.subscription import Subscription
from pgchannels.web.encoding import as_dict
from pgchannels.web.entering import enter
from pgchannels.web.event_stream import HEADERS, MEDIA_TYPE, EventOptions, event_stream, resume
from pgchannels.web.stopping import when_server_stops


async def event_source(
    request: HttpRequest,
    *groups: str,
    layer: str = "default",
    since: Position | Positions | str | None = None,
    capacity: int | None = None,
    when_full: Literal["fail", "drop_newest", "drop_oldest"] = "fail",
    encode: Callable[[Message], Any] = as_dict,
    ping: float = 15,
    retry: float | None = None,
    send_timeout: float = 30,
) -> HttpResponseBase:
    """Return a response that sends the messages of groups as Server-Sent Events.

    It ends when the client leaves or the server stops. A browser that reconnects sends the id of the last event, as
    `Last-Event-ID`, which counts instead of `since`: nothing is missed and nothing comes twice, in none of the groups.
    A client that falls behind `capacity` messages is disconnected, and gets the rest when it is back. Where messages
    are lost for good, it gets an event `gap` with `{"reason": str, "count": int | None}`.

    An impossible group or position is answered with status 422, an unavailable database with status 503.

    :param layer: the alias in `CHANNEL_LAYERS`.
    :param encode: turns a message into the data of an event: str as it is, anything else as JSON. By default, that is
        `{"topic": group, "position": …, "payload": message}`.
    :param ping: seconds; after a silence of this length the client gets a comment, or an event `since` with the id to
        resume from.
    :param retry: seconds that a browser waits before it reconnects; by default, its own choice of some seconds.
    :param send_timeout: seconds; a client that accepts nothing for this long is disconnected.
    :raises ConfigurationError: the server speaks WSGI, the layer is not a `PostgresChannelLayer`, or an option has an
        impossible value.
    """
    options = EventOptions.checked(encode=encode, ping=ping, retry=retry)
    send_timeout = require_seconds("send_timeout", send_timeout, most=DAY)
    _require_asgi(request)
    try:
        subscription = await _layer(layer).subscribe(*groups, since=since, capacity=capacity, when_full=when_full)
        resume(subscription, request.headers)
    except (InvalidName, InvalidPosition) as error:
        return JsonResponse({"detail": str(error)}, status=422)
    except (DatabaseUnavailable, LayerClosed):
        detail = {"detail": "the service is away for a moment: try again"}
        return JsonResponse(detail, status=503, headers={"Retry-After": "1"})
    if request.method == "HEAD":
        return HttpResponse(headers=HEADERS, content_type=MEDIA_TYPE)
    return _EventSource(subscription, options, send_timeout=send_timeout)


class _EventSource(StreamingHttpResponse):
    """Holds a subscription while Django iterates; ends with the client, with the server, or when nothing is taken."""

    def __init__(self, subscription: Subscription, options: EventOptions, *, send_timeout: float) -> None:
        super().__init__(event_stream(subscription, options), headers=HEADERS, content_type=MEDIA_TYPE)
        self._subscription = subscription
        self._send_timeout = send_timeout

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        task = asyncio.current_task()
        assert task is not None
        await enter(self._subscription)
        async with AsyncExitStack() as stack:
            stack.push_async_exit(self._subscription)
            parts = await stack.enter_async_context(aclosing(_until_server_stops(super().__aiter__())))
            async for part in parts:
                # Django waits for the client as long as that likes; it takes this for a client that has left.
                too_slow = asyncio.get_running_loop().call_later(self._send_timeout, task.cancel)
                try:
                    yield part
                finally:
                    too_slow.cancel()


async def _until_server_stops(parts: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    while True:
        try:
            async with asyncio.timeout(None) as waiting:
                with when_server_stops(lambda: waiting.reschedule(0)):
                    part = await anext(parts)
        except (TimeoutError, StopAsyncIteration):
            return
        yield part


def _require_asgi(request: HttpRequest) -> None:
    if not isinstance(request, ASGIRequest):
        raise ConfigurationError(
            "event_source needs a server that speaks ASGI, such as daphne or uvicorn; with WSGI a stream cannot be sent"
        )


def _layer(alias: str) -> PostgresChannelLayer:
    layer = get_channel_layer(alias)
    if isinstance(layer, PostgresChannelLayer):
        return layer
    raise ConfigurationError(f"layer={shown(alias)} names no PostgresChannelLayer in CHANNEL_LAYERS")
