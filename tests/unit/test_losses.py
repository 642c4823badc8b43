"""What says that a connection was lost, and what is told of it."""

import socket
import ssl

import asyncpg
import pytest

from pgchannels.database.failures import is_connection_failure, is_database_failure, loss_recognised
from pgchannels.database.wording import in_words


async def test_driver_that_has_let_go_of_a_lost_connection_is_understood(server_url: str) -> None:
    connection = await asyncpg.connect(server_url)
    connection.terminate()
    with pytest.raises(ConnectionResetError) as raised, loss_recognised(connection):
        connection.is_in_transaction()  # as a statement does that was between two steps
    assert is_connection_failure(raised.value)


async def test_defect_on_a_connection_that_is_there_stays_one(server_url: str) -> None:
    connection = await asyncpg.connect(server_url)
    with pytest.raises(AttributeError), loss_recognised(connection):
        connection.no_such_attribute()  # type: ignore[attr-defined]
    await connection.close()


def caused_by(error: Exception, cause: Exception) -> Exception:
    """The error as if it was raised from the other."""
    error.__cause__ = cause
    return error


PASSWORD_REFUSED = asyncpg.InvalidPasswordError("password authentication failed")

WORDS: dict[str, tuple[Exception, str]] = {
    "silence": (TimeoutError(), "no answer in time"),
    "silence of the system": (TimeoutError(110, "Connect call failed ('::1', 1)"), "no answer in time"),
    "port": (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "connection refused"),
    "ports": (
        OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 113] Connect call failed"),
        "connection refused, no route to host",
    ),
    "reset": (ConnectionResetError(), "the connection was lost"),
    "name": (socket.gaierror(-2, "Name or service not known"), "its name cannot be resolved"),
    "TLS": (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version"), "TLS failed: unknown reason"),
    "server": (asyncpg.CannotConnectNowError("starting up\nHINT:  Wait."), "starting up"),
    "driver": (asyncpg.InterfaceError("unsupported"), "unsupported"),
    "wrapped": (caused_by(RuntimeError("secret"), PASSWORD_REFUSED), "password authentication failed"),
    "anything else": (
        KeyError("secret"),
        "the driver failed with KeyError: it may not know a parameter of the URL, or of an engine's connect_args",
    ),
}


@pytest.mark.parametrize(("error", "words"), WORDS.values(), ids=WORDS.keys())
def test_failure_is_told_in_plain_words(error: Exception, words: str) -> None:
    assert in_words(error) == words


def test_refusal_that_followed_a_failure_is_a_refusal() -> None:
    # The driver tries without TLS after an attempt with it has failed.
    assert not is_connection_failure(caused_by(asyncpg.InvalidPasswordError("refused"), ConnectionResetError()))


def test_parameter_that_the_driver_cannot_use_is_no_connection_failure() -> None:
    error = asyncpg.ClientConfigurationError("`sslmode` parameter must be one of …")
    assert is_database_failure(error)
    assert not is_connection_failure(error)
