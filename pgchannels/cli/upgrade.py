"""`pgchannels upgrade` and `downgrade`: bring the tables to this version, or back to an older revision."""

import argparse
import asyncio

from pgchannels.arguments import DAY, require_seconds
from pgchannels.cli.target import CREATING_REMEDY, add_target, require_url
from pgchannels.database import migrations
from pgchannels.database.grants import grant, grant_publishing, require_role
from pgchannels.database.short_locks import TIMEOUT_SECONDS


def add_upgrade_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("upgrade", help="create the tables in a database, or bring them to this version")
    add_target(parser)
    parser.add_argument("--grant-to", metavar="ROLE", help="let this role use the tables: what an application needs")
    parser.add_argument(
        "--grant-publish-to", metavar="ROLE", help="let this role publish in transactions, from SQL and by triggers"
    )
    _add_timeout(parser)
    parser.set_defaults(run=_upgrade, remedy=CREATING_REMEDY)


def add_downgrade_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("downgrade", help="bring the tables back to an older revision, or remove them")
    parser.add_argument("revision", help="such as 0001, or base, which removes all tables")
    parser.add_argument("--yes", action="store_true", help="go back even if that loses something")
    add_target(parser)
    _add_timeout(parser)
    parser.set_defaults(run=_downgrade, remedy=CREATING_REMEDY)


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=TIMEOUT_SECONDS,
        help="how many seconds to try, while others hold locks that this needs; by default %(default)g",
    )


def _upgrade(arguments: argparse.Namespace) -> int:
    if arguments.grant_to is not None:
        require_role(arguments.grant_to)
    if arguments.grant_publish_to is not None:
        require_role(arguments.grant_publish_to, "--grant-publish-to")
    require_seconds("--timeout", arguments.timeout, most=DAY)
    url = require_url(arguments)
    before, after = asyncio.run(migrations.upgrade(url, schema=arguments.schema, timeout_seconds=arguments.timeout))
    if before == after:
        done = f"are up to date, at revision {after}"
    else:
        done = f"were created, at revision {after}" if before is None else f"were upgraded, {before} → {after}"
    print(f"The tables in the schema {arguments.schema!r} {done}.")
    if arguments.grant_to:
        asyncio.run(grant(url, arguments.grant_to, schema=arguments.schema))
        print(f"The role {arguments.grant_to!r} may use them.")
    if arguments.grant_publish_to:
        asyncio.run(grant_publishing(url, arguments.grant_publish_to, schema=arguments.schema))
        print(f"The role {arguments.grant_publish_to!r} may publish.")
    return 0


def _downgrade(arguments: argparse.Namespace) -> int:
    require_seconds("--timeout", arguments.timeout, most=DAY)
    before, lost = asyncio.run(
        migrations.downgrade(
            require_url(arguments),
            schema=arguments.schema,
            revision=arguments.revision,
            may_lose=arguments.yes,
            timeout_seconds=arguments.timeout,
        )
    )
    for line in lost:
        print(f"lost: {line}")
    done = "were removed" if arguments.revision == "base" else f"went back, {before} → {arguments.revision}"
    print(f"The tables in the schema {arguments.schema!r} {done}.")
    return 0
