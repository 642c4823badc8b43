"""A private PostgreSQL for demos and tests that leaves nothing behind, however its parent process ends."""

from pgchannels.embedded.binaries import find_binaries
from pgchannels.embedded.errors import PostgresNotFound, ServerNotStarted, ServerStartFailed
from pgchannels.embedded.server import EmbeddedServer

__all__ = ["EmbeddedServer", "PostgresNotFound", "ServerNotStarted", "ServerStartFailed", "find_binaries"]
