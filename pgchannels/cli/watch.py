"""`pgchannels watch` and `unwatch`: publish the changes of a table's rows, or stop that."""

import argparse

from sqlalchemy import Connection

from pgchannels.cli.target import OWNING_REMEDY, add_target, in_transaction
from pgchannels.database import row_changes
from pgchannels.database.revision import require_tables
from pgchannels.names import DEFAULT_PREFIX

_USUAL_SEARCH_PATH = 'SET LOCAL search_path = "$user", public'  # the table is named as its owner would


def add_watch_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands to the parser."""
    watch = commands.add_parser("watch", help="publish the changes of a table's rows, as they commit")
    _add_table(watch)
    watch.add_argument("--topic", required=True, help="where they go, such as orders.{customer_id}: a column in braces")
    watch.add_argument("--without", metavar="COLUMN", action="append", default=[], help="leave a column out")
    watch.add_argument("--prefix", default=DEFAULT_PREFIX, help="of the layers that receive, by default %(default)s")
    watch.set_defaults(run=_watch)
    unwatch = commands.add_parser("unwatch", help="stop what `watch` began")
    _add_table(unwatch)
    unwatch.set_defaults(run=_unwatch)


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", help="as in SQL, such as orders or shop.orders")
    add_target(parser)
    parser.set_defaults(remedy=OWNING_REMEDY)
    parser.add_argument("--name", default=row_changes.DEFAULT_TRIGGER, help="of the trigger, by default %(default)s")


def _watch(arguments: argparse.Namespace) -> int:
    changes = row_changes.RowChanges(
        topic=arguments.topic,
        without=arguments.without,
        prefix=arguments.prefix,
        name=arguments.name,
        schema=arguments.schema,
    )
    _run(arguments, changes.start(arguments.table))
    print(f"Changes of {arguments.table} are published to {arguments.topic}.")
    return 0


def _unwatch(arguments: argparse.Namespace) -> int:
    _run(arguments, row_changes.stop(arguments.table, name=arguments.name, schema=arguments.schema))
    print(f"Changes of {arguments.table} are no longer published.")
    return 0


def _run(arguments: argparse.Namespace, statement: str) -> None:
    def work(connection: Connection) -> None:
        require_tables(connection, arguments.schema)
        connection.exec_driver_sql(_USUAL_SEARCH_PATH)
        connection.exec_driver_sql(statement)

    in_transaction(arguments, work)
