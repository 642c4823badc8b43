"""For Starlette and FastAPI: keep a layer open while the application runs, end websockets well, explain errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pgchannels.arguments import DAY, refusal, require_callable_or_none, require_seconds
from pgchannels.errors import (
    ChannelFull,
    DatabaseUnavailable,
    InvalidMessage,
    InvalidName,
    InvalidPosition,
    LayerClosed,
    MessagesLost,
    MessageTooLarge,
)
from pgchannels.layer import MessageLayer
from pgchannels.messages import Gap, GapReason, Message
from pgchannels.subscription import Subscription
from pgchannels.web.encoding import as_dict, gap_as_dict, json_text
from pgchannels.web.unhandled import Unhandled

__all__ = ["as_dict", "exception_handlers", "lifespan", "websocket_messages"]

_POLICY_VIOLATION: Final = 1008  # codes of RFC 6455 and its registry
_SERVICE_RESTART: Final = 1012
_TRY_AGAIN_LATER: Final = 1013
_LONGEST_REASON_BYTES: Final = 123
_AWAY: Final = "the service is away for a moment: try again"
_CLOSE_SECONDS: Final = 1
_SILENCE_SECONDS: Final = 15
_CLIENTS_FAULT: Final = (InvalidName, InvalidPosition, InvalidMessage, MessageTooLarge)
_PASSING: Final = (DatabaseUnavailable, LayerClosed, ChannelFull)
_CODES: Final[dict[type[Exception], int]] = {
    **dict.fromkeys(_CLIENTS_FAULT, _POLICY_VIOLATION),
    **dict.fromkeys((MessagesLost, DatabaseUnavailable, ChannelFull), _TRY_AGAIN_LATER),
    LayerClosed: _SERVICE_RESTART,
}


def lifespan(layer: MessageLayer, *, wait: float = 0) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """`FastAPI(lifespan=lifespan(layer))` opens the layer before the first request and closes it after the last.

    `wait` is how many seconds to wait for a database that starts later than the application; see `MessageLayer.open`.

    :raises ConfigurationError: `layer` is not a `MessageLayer`, or `wait` is not a possible number of seconds.
    """
    if not isinstance(layer, MessageLayer):
        raise refusal("layer", layer, "a MessageLayer")
    wait = require_seconds("wait", wait, most=DAY, or_zero=True)

    @asynccontextmanager
    async def opened(application: Starlette) -> AsyncIterator[None]:
        for each in _with_mounted(application):
            each.state.pgchannels_layer = layer  # where pgchannels.fastapi finds it
        await layer.open(wait=wait)
        try:
            yield
        finally:
            await layer.close()

    return opened


async def websocket_messages(
    websocket: WebSocket,
    subscription: Subscription,
    *,
    encode: Callable[[Message], Any] = as_dict,
    received: Callable[[str | bytes], Awaitable[object]] | None = None,
    send_timeout: float = 30,
    resumable: bool = False,
) -> None:
    """Send a subscription's messages to a websocket until either side ends; leave no task and no subscription behind.

    Accepts the websocket if that has not been done. Reads from it, too, so this ends at once when the client leaves or
    the server stops. Where messages were lost, the client gets `{"gap": {"reason": str, "count": int | None}}` in their
    place, unless the subscription has an `on_gap`. The close code says why a client is disconnected: 1013 if it is too
    slow for the subscription's capacity, or the database is away; 1012 if the layer is closed.

    :param encode: turns a message into what is sent: str and bytes as they are, anything else as JSON, with UUID, date,
        datetime and Decimal as text, bytes as base64, sets as lists, NaN and infinity as null.
    :param received: called with what the client sends, one message after another, and cancelled when either side ends.
        An exception from it ends the websocket, and is raised here. By default, what the client sends is ignored. While
        1,000 messages, or more than 1 MiB, wait for it, no more is read, and a client that leaves is noticed later.
    :param send_timeout: seconds; a client that accepts nothing for this long is too slow.
    :param resumable: also send `{"since": str}`, at the beginning and every 15 seconds of silence: what to pass as
        `since` when reconnecting. So a client can resume that has received no message yet, or none for long.
    """
    require_callable_or_none("encode", encode)
    if received is not None and not iscoroutinefunction(received):
        require_callable_or_none("received", received)
    send_timeout = require_seconds("send_timeout", send_timeout, most=DAY)
    if websocket.client_state is WebSocketState.CONNECTING:
        await websocket.accept()
    unhandled = Unhandled()
    work = {
        "read a websocket": _read(websocket, unhandled if received is not None else None),
        "write to a websocket": _write(websocket, subscription, encode, send_timeout, resumable),
    }
    if received is not None:
        work["handle what a websocket has sent"] = _handle(unhandled, received)
    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    failures = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    for error in failures:
        if not isinstance(error, (*_CODES, WebSocketDisconnect)):
            raise error
    if not any(isinstance(error, WebSocketDisconnect) for error in failures):
        await _disconnect(websocket, failures[0])


def _with_mounted(application: Starlette) -> Iterator[Starlette]:
    yield application
    for route in application.routes:
        if isinstance(mounted := getattr(route, "app", None), Starlette):
            yield from _with_mounted(mounted)


async def _read(websocket: WebSocket, unhandled: Unhandled | None) -> None:
    """Read until the client leaves or the server stops; then raise `WebSocketDisconnect`."""
    while True:
        event = await websocket.receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005))
        if unhandled is not None:
            text = event.get("text")
            await unhandled.put(event["bytes"] if text is None else text)


async def _handle(unhandled: Unhandled, received: Callable[[str | bytes], Awaitable[object]]) -> None:
    while True:
        taken = received(await unhandled.get())
        if not isawaitable(taken):
            raise refusal("received", received, "a coroutine function")
        await taken


async def _write(
    websocket: WebSocket,
    subscription: Subscription,
    encode: Callable[[Message], Any],
    send_timeout: float,
    resumable: bool,
) -> None:
    async with subscription:
        if resumable:
            await _send(websocket, {"since": str(subscription.position)}, send_timeout)
        while True:
            content = await _next(subscription, encode, _SILENCE_SECONDS if resumable else None)
            await _send(websocket, content, send_timeout)


async def _next(subscription: Subscription, encode: Callable[[Message], Any], most_seconds: float | None) -> Any:
    try:
        async with asyncio.timeout(most_seconds):
            message = await anext(subscription)
    except TimeoutError:
        return {"since": str(subscription.position)}
    except MessagesLost as lost:
        if lost.gap.reason is GapReason.CAPACITY:
            raise  # the subscription has ended
        return {"gap": gap_as_dict(lost.gap)}
    return encode(message)


async def _send(websocket: WebSocket, content: Any, timeout_seconds: float) -> None:
    if websocket.client_state is not WebSocketState.CONNECTED:
        raise WebSocketDisconnect
    plain = content if isinstance(content, str | bytes) else json_text(content)
    try:
        async with asyncio.timeout(timeout_seconds):
            await (websocket.send_bytes(plain) if isinstance(plain, bytes) else websocket.send_text(plain))
    except TimeoutError:
        raise MessagesLost(Gap(GapReason.CAPACITY, None)) from None
    except RuntimeError as error:  # the server has just closed it, as after a damaged frame
        raise WebSocketDisconnect from error


async def _disconnect(websocket: WebSocket, error: BaseException) -> None:
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), _TRY_AGAIN_LATER)
    reason = _AWAY if isinstance(error, _PASSING) else str(error)
    with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):  # the client has already left, or accepts nothing
        async with asyncio.timeout(_CLOSE_SECONDS):
            if websocket.client_state is WebSocketState.CONNECTING:
                await websocket.accept()  # else the client sees a failed handshake, and not why
            await websocket.close(code, reason.encode()[:_LONGEST_REASON_BYTES].decode(errors="ignore"))


async def _tell(connection: HTTPConnection, error: Exception) -> Response | None:
    if isinstance(connection, WebSocket):
        await _disconnect(connection, error)
        return None
    if isinstance(error, _PASSING):
        return JSONResponse({"detail": _AWAY}, 503, {"Retry-After": "1"})
    return JSONResponse({"detail": str(error)}, 413 if isinstance(error, MessageTooLarge) else 422)


exception_handlers: Final[dict[int | type[Exception], Callable[[Any, Any], Coroutine[Any, Any, Any]]]] = dict.fromkeys(
    (*_CLIENTS_FAULT, *_PASSING), _tell
)
"""Tells clients what is wrong: `FastAPI(exception_handlers=exception_handlers)`, or the same of Starlette.

A name, a position or a message that cannot be used is their fault: they get status 422, or 413 for what is too large,
with the text of the error as `detail`; a websocket is closed with code 1008. While the database is away they get status
503, or code 1013.
"""
