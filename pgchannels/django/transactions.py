"""Sends that take part in a transaction of Django's."""

from collections.abc import Sequence
from enum import Enum
from typing import Final

from asgiref.sync import AsyncToSync, sync_to_async
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from pgchannels.arguments import shown
from pgchannels.errors import ConfigurationError
from pgchannels.sending.outgoing import Outgoing
from pgchannels.servers.engine import Engine


class _Default(Enum):
    FROM_SETTINGS = "from the settings"


FROM_SETTINGS: Final = _Default.FROM_SETTINGS

Using = str | _Default | None


class Transactions:
    """Decides for each send whether it takes part in an `atomic()` block, and of which database.

    :param using: the alias in the settings of the layer; None: a send takes part only when it says so.
    """

    def __init__(self, using: str | None) -> None:
        self._using = using
        self._own: set[str] = set()  # aliases of the layer's database

    def join(self, process: Engine, messages: Sequence[Outgoing], using: Using) -> bool:
        """Put messages into the open transaction of this thread; return False, and do nothing, if there is none.

        :raises ConfigurationError: there is no such alias, or it is another database than the layer's.
        """
        alias = self._using if using is FROM_SETTINGS else using
        if alias is None:
            return False
        if is_in_transaction(alias):
            process.enqueue_blocking(messages, connections[alias])
            return True
        if using is not FROM_SETTINGS:
            self._require_own(process, alias)
        return False

    async def join_async(self, process: Engine, messages: Sequence[Outgoing], using: Using) -> bool:
        """As `join`, for the thread that runs the synchronous code behind this coroutine."""
        alias = self._using if using is FROM_SETTINGS else using
        if alias is None or (using is FROM_SETTINGS and not _is_called_by_synchronous_code()):
            return False
        return await sync_to_async(self.join)(process, messages, using)

    def _require_own(self, process: Engine, alias: str) -> None:
        """Ask once whether an alias is the layer's database, since in an `atomic()` block another one is refused."""
        if alias not in self._own:
            process.enqueue_blocking([], connections[alias])
            self._own.add(alias)


def is_in_transaction(alias: str) -> bool:
    """Whether this thread is inside an `atomic()` block of a database, or Django does not commit by itself there.

    :raises ConfigurationError: Django has no such database.
    """
    try:
        connection = connections[alias]
    except (ConnectionDoesNotExist, TypeError, AttributeError) as error:
        raise ConfigurationError(f"using={shown(alias)} is no alias of DATABASES") from error
    return connection.in_atomic_block or not connection.get_autocommit()


def _is_called_by_synchronous_code() -> bool:
    # As `sync_to_async` decides it. Elsewhere no `atomic()` block can be open around a coroutine.
    return getattr(AsyncToSync.executors, "current", None) is not None
