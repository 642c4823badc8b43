"""Messages inside transactions of the application: the database delivers them when the transaction commits."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pgchannels.database.callers import caller_of, caller_of_async, sqlstate_of
from pgchannels.database.statements.sending import enqueue
from pgchannels.database.wording import Place
from pgchannels.errors import ConfigurationError
from pgchannels.options import Options
from pgchannels.sending.outgoing import Outgoing

_NOT_THERE: Final = ("3F000", "42883", "42P01")  # a schema, a function, a table
_MAY_NOT: Final = "42501"


class Outbox:
    """Puts messages into the outbox of the database, on connections of the application.

    A connection to another database would take them, and nobody would receive them: so the database names itself.

    :param place: which database is the layer's, for errors.
    """

    def __init__(self, options: Options, place: Callable[[], Place]) -> None:
        self._options = options
        self._place = place
        self._database: str | None = None  # as it names itself

    async def put(
        self, messages: Sequence[Outgoing], connection: object, *, name_database: Callable[[], Awaitable[str]]
    ) -> None:
        """Put messages into the transaction of an asynchronous connection.

        :param name_database: asks the layer's own database for its name.
        :raises ConfigurationError: the connection is of an unknown kind, or to another database.
        """
        call, schema = caller_of_async(connection), self._options.schema
        self._database = self._database or await name_database()
        with refusals_explained(schema, lambda: str(self._place())):
            other = await call(enqueue, schema, self._values(messages))
            if other is not None and self._is_new(await name_database()):
                other = await call(enqueue, schema, self._values(messages))
        self._require_own(other)

    def put_blocking(
        self, messages: Sequence[Outgoing], connection: object, *, name_database: Callable[[], str]
    ) -> None:
        """As `put`, for a connection that blocks."""
        call, schema = caller_of(connection), self._options.schema
        self._database = self._database or name_database()
        with refusals_explained(schema, lambda: str(self._place())):
            other = call(enqueue, schema, self._values(messages))
            if other is not None and self._is_new(name_database()):
                other = call(enqueue, schema, self._values(messages))
        self._require_own(other)

    def _is_new(self, name: str) -> bool:
        """Record how the layer's database names itself; whether that has changed, as when it was created anew."""
        known, self._database = self._database, name
        return known != name

    def _values(self, messages: Sequence[Outgoing]) -> dict[str, object]:
        return {
            "expected": self._database,
            "addresses": [message.address for message in messages],
            "channels": [message.channel for message in messages],
            "payloads": [message.envelope for message in messages],
            "capacities": [message.capacity for message in messages],
            "keys": [message.key for message in messages],
            "expiries": [message.expiry_seconds or -self._options.expiry for message in messages],
        }

    def _require_own(self, other: str | None) -> None:
        if other is not None:
            raise ConfigurationError(
                f"the connection is to the database {other!r}, and the layer's is {self._place()}: nothing was sent."
                " Publish in a transaction of the layer's own database"
            )


@contextmanager
def refusals_explained(schema: str, place: Callable[[], str]) -> Iterator[None]:
    """Raise an error that says why a connection of the application cannot send.

    :param place: says which databases are the layer's.
    :raises ConfigurationError: its database lacks the tables, or its role a privilege.
    """
    try:
        yield
    except Exception as error:
        state = sqlstate_of(error)
        if state in _NOT_THERE:
            raise ConfigurationError(
                f"the database of the connection has no pgchannels tables in the schema {schema!r}, and the layer's"
                f" is {place()}: publish in a transaction of that"
            ) from error
        if state == _MAY_NOT:
            raise ConfigurationError(
                f"the role of the connection may not publish ({error.__class__.__name__}): run `pgchannels upgrade"
                " --grant-publish-to ROLE --url …` as the owner of the tables"
            ) from error
        raise
