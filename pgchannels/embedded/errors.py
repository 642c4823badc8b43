"""What can go wrong with an embedded server."""

from pgchannels.errors import PgChannelsError


class PostgresNotFound(PgChannelsError):
    """No PostgreSQL programs in any of the places searched."""


class ServerStartFailed(PgChannelsError):
    """The server did not become ready; the message ends with the tail of its log."""


class ServerNotStarted(PgChannelsError):
    """The server was never started, was stopped, or lost its supervisor."""
