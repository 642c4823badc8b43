"""`pgchannels upgrade`: create the tables, or bring them to this version."""

import argparse
import asyncio

from pgchannels.cli.target import CREATING_REMEDY, add_target, require_url
from pgchannels.database import migrations
from pgchannels.database.grants import grant, grant_publishing, require_role


def add_upgrade_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("upgrade", help="create the tables in a database, or bring them to this version")
    add_target(parser)
    parser.add_argument("--grant-to", metavar="ROLE", help="let this role use the tables: what an application needs")
    parser.add_argument(
        "--grant-publish-to", metavar="ROLE", help="let this role publish in transactions, from SQL and by triggers"
    )
    parser.set_defaults(run=_upgrade, remedy=CREATING_REMEDY)


def _upgrade(arguments: argparse.Namespace) -> int:
    if arguments.grant_to is not None:
        require_role(arguments.grant_to)
    if arguments.grant_publish_to is not None:
        require_role(arguments.grant_publish_to, "--grant-publish-to")
    url = require_url(arguments)
    before, after = asyncio.run(migrations.upgrade(url, schema=arguments.schema))
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
