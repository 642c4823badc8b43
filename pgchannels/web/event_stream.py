"""A subscription as a stream of Server-Sent Events, each with an `id` to resume from."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from pgchannels.arguments import DAY, require_callable_or_none, require_seconds
from pgchannels.errors import MessagesLost, PgChannelsError
from pgchannels.messages import GapReason, Message
from pgchannels.subscription import Subscription
from pgchannels.web.encoding import gap_as_dict, json_text

HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # so that no proxy collects events
MEDIA_TYPE: Final = "text/event-stream"
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class EventOptions:
    """What every `event_source` takes besides a request and a subscription."""

    encode: Callable[[Message], Any]
    ping_seconds: float
    retry_seconds: float | None

    @classmethod
    def checked(cls, *, encode: Callable[[Message], Any], ping: float, retry: float | None) -> Self:
        """Return the options, or raise `ConfigurationError`."""
        return cls(
            require_callable_or_none("encode", encode),
            require_seconds("ping", ping, most=DAY),
            None if retry is None else require_seconds("retry", retry, most=DAY),
        )


def resume(subscription: Subscription, headers: Mapping[str, str]) -> Subscription:
    """Let a subscription begin after the last event that a browser has seen, if it has seen one.

    :raises InvalidPosition: its id is none of ours.
    """
    last = headers.get("Last-Event-ID")
    return subscription.resume(last) if last else subscription


async def event_stream(subscription: Subscription, options: EventOptions) -> AsyncGenerator[bytes]:
    """Yield the events of a subscription that was entered; end when the client should come back.

    That is when it is too slow, since the log still has what its mailbox had no room for, or when the layer is closed.
    """
    sent = str(subscription.position)
    retry = {} if options.retry_seconds is None else {"retry": f"{options.retry_seconds * 1000:.0f}"}
    yield _event(_since(sent) | retry)  # a client that has got no message yet can resume, too
    while (fields := await _next(subscription, options)) is not None:
        stands = str(subscription.position)
        if fields:
            yield _event({"id": stands} | fields)
        elif stands != sent:
            yield _event(_since(stands))
        else:
            yield b": ping\n\n"
        sent = stands


def _since(stands: str) -> dict[str, str]:
    # An event without data would do for the browser's own memory, but no script would see it.
    return {"id": stands, "event": "since", "data": stands}


async def _next(subscription: Subscription, options: EventOptions) -> dict[str, str] | None:
    """Return what to send: nothing after a silence, None at the end."""
    try:
        async with asyncio.timeout(options.ping_seconds):
            message = await anext(subscription)
    except TimeoutError:
        return {}
    except MessagesLost as lost:
        if lost.gap.reason is GapReason.CAPACITY:
            return None
        return {"event": "gap", "data": json_text(gap_as_dict(lost.gap))}
    except PgChannelsError:
        return None
    content = options.encode(message)
    return {"data": content if isinstance(content, str) else json_text(content)}


def _event(fields: Mapping[str, str]) -> bytes:
    lines = [f"{name}: {line}\n" for name, value in fields.items() for line in _LINE_END.split(value)]
    return "".join([*lines, "\n"]).encode()
