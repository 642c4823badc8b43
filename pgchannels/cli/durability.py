"""`pgchannels durability`: show or choose what a crash of the server leaves of the log."""

import argparse
import asyncio
from typing import Final

from pgchannels.arguments import DAY, require_seconds
from pgchannels.cli.target import add_target, require_url
from pgchannels.database.database import Database
from pgchannels.database.durability import Status, choose, show
from pgchannels.database.tables import schema_named
from pgchannels.names import require_valid_schema

_TIMEOUT_SECONDS: Final = 30
_CHOICES: Final = ("durable", "fast")
_MEANINGS: Final = {
    "durable": "The log is durable: messages outlive a crash of the server, and a failover to a synchronous standby.",
    "fast": "The log is fast: a crash of the server, or a failover, loses its messages, and receivers get a gap.",
}
_OLDER: Final = "Messages from before leave with the retention; until then a crash takes them."


def add_durability_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("durability", help="show or choose what a crash of the server leaves of the log")
    parser.add_argument("chosen", nargs="?", choices=_CHOICES, help="without it, the command shows the choice")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_SECONDS, help="in seconds, by default %(default)s")
    add_target(parser)
    parser.set_defaults(run=_durability)


def _durability(arguments: argparse.Namespace) -> int:
    require_seconds("--timeout", arguments.timeout, most=DAY)
    database, schema = Database(require_url(arguments)), schema_named(require_valid_schema(arguments.schema))
    if arguments.chosen is None:
        status = asyncio.run(show(database, schema))
    else:
        status = asyncio.run(choose(database, schema, arguments.chosen, timeout_seconds=arguments.timeout))
    print(*_in_words(status), sep="\n")
    return 0


def _in_words(status: Status) -> list[str]:
    if not status.holds:
        wanted = status.chosen
        return [f"The log is to be {wanted}, but new messages are not yet: run `pgchannels durability {wanted}`."]
    is_mixed = status.chosen == "durable" and not status.is_durable
    return [_MEANINGS[status.chosen], *[_OLDER] * is_mixed]
