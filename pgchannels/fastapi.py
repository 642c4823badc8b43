"""Dependencies for FastAPI: the layer of the application, and a subscription that a client may have."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction
from string import Formatter
from typing import Annotated, Any, Final, Literal, TypeAlias

from fastapi import Depends, HTTPException, Query, WebSocketException
from fastapi.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from pgchannels.arguments import refusal, require_count, require_one_of, shown
from pgchannels.errors import ConfigurationError
from pgchannels.layer import MessageLayer
from pgchannels.names import require_valid_topic
from pgchannels.receiving.mailbox import WhenFull
from pgchannels.subscription import Subscription

_POLICY_VIOLATION: Final = 1008
_FORBIDDEN: Final = 403
_REFUSED: Final = "you may not listen to this"

Allow: TypeAlias = Callable[[HTTPConnection, str], bool | Awaitable[bool]]


def layer_of(connection: HTTPConnection) -> MessageLayer:
    """Return the layer that `lifespan` opened for the application; as a parameter's type, that is `LayerDep`.

    With a lifespan of your own, set `app.state.pgchannels_layer`. In tests, `app.dependency_overrides[layer_of]`
    replaces it.

    :raises ConfigurationError: the application has none.
    """
    layer = getattr(connection.app.state, "pgchannels_layer", None)
    if isinstance(layer, MessageLayer):
        return layer
    raise ConfigurationError(
        "the application has no layer: make it with FastAPI(lifespan=lifespan(layer)),"
        " or set app.state.pgchannels_layer in a lifespan of your own"
    )


LayerDep: TypeAlias = Annotated[MessageLayer, Depends(layer_of)]


class SubscribeTo:
    """A dependency that subscribes to topics named by the path: `Annotated[Subscription, Depends(SubscribeTo(…))]`.

    `SubscribeTo("rooms.{room}")` takes `room` from the path of the request or websocket. A `since` in the query says
    where to begin; the errors of impossible names and positions are answered by `exception_handlers`.

    :param allow: called with the request or websocket and each topic. Unless it returns True for all, a request is
        answered with status 403, and a websocket closed with code 1008. A plain function runs in a thread, so it may
        block; what it raises, such as an `HTTPException` of your own, is raised.
    :param capacity: as that of `MessageLayer.subscribe`; so is `when_full`.
    """

    def __init__(
        self,
        *topics: str,
        allow: Allow | None = None,
        capacity: int | None = None,
        when_full: Literal["fail", "drop_newest", "drop_oldest"] = "fail",
    ) -> None:
        if not topics:
            raise ConfigurationError("SubscribeTo needs at least one topic")
        for topic in topics:
            _require_fillable(topic)
        if allow is not None and not callable(allow):
            raise refusal("allow", allow, "a function, or None")
        self._topics = topics
        self._allow = allow
        self._capacity = None if capacity is None else require_count("capacity", capacity)
        self._when_full = require_one_of("when_full", when_full, WhenFull)

    async def __call__(
        self, connection: HTTPConnection, layer: LayerDep, since: Annotated[str | None, Query()] = None
    ) -> Subscription:
        """Return the subscription, which is still to be entered."""
        topics = [_filled(topic, connection.path_params) for topic in self._topics]
        subscription = layer.subscribe(*topics, since=since, capacity=self._capacity, when_full=self._when_full.value)
        for topic in topics:
            if not await self._is_allowed(connection, topic):
                await _refuse(connection)
        return subscription

    async def _is_allowed(self, connection: HTTPConnection, topic: str) -> bool:
        if self._allow is None:
            return True
        if iscoroutinefunction(self._allow):
            answer = await self._allow(connection, topic)
        else:
            answer = await run_in_threadpool(self._allow, connection, topic)
        return (await answer if isawaitable(answer) else answer) is True


def _require_fillable(topic: str) -> None:
    try:
        parts = list(Formatter().parse(topic))
    except (TypeError, ValueError):
        parts = [("", "", "", None)]
    names = [name for _, name, _, _ in parts if name is not None]
    if not all(name.isidentifier() for name in names) or any(spec or conversion for *_, spec, conversion in parts):
        raise refusal("a topic", topic, "a str such as 'rooms.{room}', with names of path parameters in braces")
    require_valid_topic(topic.format_map(dict.fromkeys(names, "x")))


def _filled(topic: str, path_params: dict[str, Any]) -> str:
    try:
        return topic.format_map(path_params)
    except (LookupError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"the topic {shown(topic)} needs what the path does not name: that has {shown(sorted(path_params))}"
        ) from error


async def _refuse(connection: HTTPConnection) -> None:
    if not isinstance(connection, WebSocket):
        raise HTTPException(_FORBIDDEN, _REFUSED)
    await connection.accept()  # else the client sees a failed handshake, and not that it need not try again
    raise WebSocketException(_POLICY_VIOLATION, _REFUSED)
