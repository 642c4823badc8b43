"""Sends that take part in a transaction of the application: they go to the server that it is on."""

from collections.abc import Iterator, Mapping, Sequence

from pgchannels.database.callers import caller_of, caller_of_async
from pgchannels.database.statements.sending import outbox_database
from pgchannels.errors import ConfigurationError, DatabaseUnavailable
from pgchannels.names import is_topic_address, topic_of_address
from pgchannels.process.process import Process
from pgchannels.sending.outbox import refusals_explained
from pgchannels.sending.outgoing import Outgoing
from pgchannels.servers.placement import Placement


class TransactionsOnServers:
    """Finds the server that a connection of the application is to, and refuses what nobody would receive from there."""

    def __init__(self, processes: Mapping[str, Process], placement: Placement, schema: str) -> None:
        self._processes = processes
        self._placement = placement
        self._schema = schema
        self._servers: dict[str, str] = {}  # by how their databases name themselves

    async def process_of(self, connection: object, messages: Sequence[Outgoing]) -> Process:
        """Return what puts messages into the transaction of an asynchronous connection.

        :raises ConfigurationError: the connection is to none of the servers, or a topic is on another one.
        :raises DatabaseUnavailable: a server could not be asked whether the connection is to it.
        """
        call = caller_of_async(connection)
        with refusals_explained(self._schema, self._names):
            name = await call(outbox_database, self._schema, {})
        failure: DatabaseUnavailable | None = None
        for server in self._to_ask(name, messages):
            try:
                self._servers[await self._processes[server].sender().database_name()] = server
            except DatabaseUnavailable as error:
                failure = error
        return self._allowed(name, messages, failure)

    def process_of_blocking(self, connection: object, messages: Sequence[Outgoing]) -> Process:
        """As `process_of`, for a connection that blocks."""
        call = caller_of(connection)
        with refusals_explained(self._schema, self._names):
            name = call(outbox_database, self._schema, {})
        failure: DatabaseUnavailable | None = None
        for server in self._to_ask(name, messages):
            try:
                self._servers[self._processes[server].blocking_sender().database_name()] = server
            except DatabaseUnavailable as error:
                failure = error
        return self._allowed(name, messages, failure)

    def _to_ask(self, name: str, messages: Sequence[Outgoing]) -> Iterator[str]:
        """Yield servers until one has the name: first those that carry the messages, where it should be."""
        carrying = [self._placement.server_of(message.address) for message in messages]
        for server in dict.fromkeys((*carrying, *self._placement.names)):
            if name in self._servers:
                return
            yield server

    def _allowed(self, name: str, messages: Sequence[Outgoing], failure: DatabaseUnavailable | None) -> Process:
        server = self._servers.get(name)
        if server is None and failure is not None:
            raise failure
        if server is None or not self._placement.is_sent_to(server):
            raise ConfigurationError(
                f"the connection is to the database {name!r}, which is none of the layer's servers, {self._names()}:"
                " nothing was sent. Publish in a transaction of one of them"
            )
        for message in messages:
            self._require_on(server, message.address)
        return self._processes[server]

    def _require_on(self, server: str, address: str) -> None:
        carrying = self._placement.server_of(address)
        if is_topic_address(address) and carrying != server:
            topic = topic_of_address(address)
            raise ConfigurationError(
                f"the topic {topic} is on the server {carrying!r}, and the connection is to {server!r}, where nobody"
                f" subscribes to it: nothing was sent. Pin the topic to the server of its transactions,"
                f" pinned={{{topic!r}: {server!r}}}, in every process"
            )

    def _names(self) -> str:
        return ", ".join(map(repr, self._placement.names))
