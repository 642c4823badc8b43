"""`pgchannels durability`: show or choose what a crash of the server leaves of the log."""

import argparse
import asyncio
from typing import Final

from pgchannels.cli.target import add_target, require_url
from pgchannels.database.database import Database
from pgchannels.database.durability import Status, choose, show
from pgchannels.database.tables import schema_named
from pgchannels.names import require_valid_schema

_TIMEOUT_SECONDS: Final = 30
_MEANINGS: Final = {
    "durable": "Messages outlive a crash of the server, and a failover to a synchronous standby.",
    "fast": "A crash of the server, or a failover, loses the messages in the log; receivers get a gap.",
}


def add_durability_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("durability", help="show or choose what a crash of the server leaves of the log")
    parser.add_argument("chosen", nargs="?", choices=list(_MEANINGS), help="without it, the command shows the choice")
    parser.add_argument("--timeout", type=float, default=_TIMEOUT_SECONDS, help="in seconds, by default %(default)s")
    add_target(parser)
    parser.set_defaults(run=_durability)


def _durability(arguments: argparse.Namespace) -> int:
    database, schema = Database(require_url(arguments)), schema_named(require_valid_schema(arguments.schema))
    if arguments.chosen is None:
        status = asyncio.run(show(database, schema))
    else:
        status = asyncio.run(choose(database, schema, arguments.chosen, timeout_seconds=arguments.timeout))
    print(f"The log is {status.chosen}. {_MEANINGS.get(status.chosen, '')}")
    print(*_exceptions(status), sep="\n", end="")
    return 0


def _exceptions(status: Status) -> list[str]:
    if not status.holds:
        return [f"This does not hold yet: run `pgchannels durability {status.chosen}`.\n"]
    if status.chosen == "durable" and not status.is_durable:
        return ["Messages from before leave with the retention; until then a crash takes them.\n"]
    return []
