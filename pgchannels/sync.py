"""The sending methods of a layer, for code without an event loop."""

from collections.abc import Iterable, Mapping
from typing import Any, overload

from pgchannels.database.callers import CursorMaker, Executor
from pgchannels.messages import Header, Position
from pgchannels.names import require_valid_channel, require_valid_topic
from pgchannels.servers.engine import Engine


class SyncMessageLayer:
    """`layer.sync`: sends from any thread without a running event loop, over one connection for the whole process.

    Each call waits until its message is in the database, and raises the same errors as its asynchronous twin. With
    `connection`, it takes part in the transaction of that connection instead, and returns None: a `Connection` or
    `Session` of SQLAlchemy, or a connection of psycopg or Django.

    :raises WouldBlock: an event loop is running in this thread.
    """

    def __init__(self, engine: Engine) -> None:
        self._process = engine

    @overload
    def publish(
        self,
        topic: str,
        payload: Any,
        *,
        headers: Mapping[str, Header] | None = None,
        key: str | None = None,
        expiry: float | None = None,
        connection: None = None,
    ) -> Position: ...

    @overload
    def publish(
        self,
        topic: str,
        payload: Any,
        *,
        headers: Mapping[str, Header] | None = None,
        key: str | None = None,
        expiry: float | None = None,
        connection: Executor | CursorMaker,
    ) -> None: ...

    def publish(
        self,
        topic: str,
        payload: Any,
        *,
        headers: Mapping[str, Header] | None = None,
        key: str | None = None,
        expiry: float | None = None,
        connection: Executor | CursorMaker | None = None,
    ) -> Position | None:
        """Publish a payload to a topic."""
        topic = require_valid_topic(topic)
        message = self._process.packer.to_topic(topic, payload, headers=headers, key=key, expiry=expiry)
        if connection is None:
            return self._process.position_of(message, self._process.blocking_sender().send(message))
        self._process.enqueue_blocking([message], connection)
        return None

    @overload
    def publish_many(self, messages: Iterable[tuple[str, Any]], *, connection: None = None) -> list[Position]: ...

    @overload
    def publish_many(self, messages: Iterable[tuple[str, Any]], *, connection: Executor | CursorMaker) -> None: ...

    def publish_many(
        self, messages: Iterable[tuple[str, Any]], *, connection: Executor | CursorMaker | None = None
    ) -> list[Position] | None:
        """Publish payloads to topics in this order, with few round trips."""
        packed = self._process.packer.to_topics(messages)
        if connection is None:
            sent = self._process.blocking_sender().send_many(packed)
            return list(map(self._process.position_of, packed, sent))
        self._process.enqueue_blocking(packed, connection)
        return None

    @overload
    def send(self, channel: str, payload: Any, *, expiry: float | None = None, connection: None = None) -> Position: ...

    @overload
    def send(
        self, channel: str, payload: Any, *, expiry: float | None = None, connection: Executor | CursorMaker
    ) -> None: ...

    def send(
        self,
        channel: str,
        payload: Any,
        *,
        expiry: float | None = None,
        connection: Executor | CursorMaker | None = None,
    ) -> Position | None:
        """Send a payload to a channel."""
        channel = require_valid_channel(channel)
        message = self._process.packer.to_channel(channel, payload, expiry=expiry)
        if connection is None:
            return self._process.position_of(message, self._process.blocking_sender().send(message))
        self._process.enqueue_blocking([message], connection)
        return None

    def close(self) -> None:
        """Send pending messages and close the connection; the next call reconnects. Process exit does this, too."""
        self._process.stop_background()
