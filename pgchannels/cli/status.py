"""`pgchannels status`: what the log keeps, who is there, and what waits."""

import argparse
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection

from pgchannels.cli.retention import RetentionStatus, in_units
from pgchannels.cli.target import add_target, in_transaction
from pgchannels.database.revision import REVISIONS, require_revision, require_tables
from pgchannels.database.statements.status import status
from pgchannels.database.tables import Schema, schema_named
from pgchannels.names import DEFAULT_PREFIX, require_valid_schema

_FIRST_REVISION: Final = "0002"

_MUCH_OF_THE_QUEUE: Final = 0.5
_KIB: Final = 1024


def add_status_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("status", help="show what the log keeps, who receives, and what waits")
    parser.add_argument("--json", action="store_true", help="for programs; durations in seconds, sizes in bytes")
    add_target(parser)
    parser.set_defaults(run=_status)


def _status(arguments: argparse.Namespace) -> int:
    schema = schema_named(require_valid_schema(arguments.schema))
    found, kept = in_transaction(arguments, lambda connection: _read(connection, schema))
    found["warnings"] = list(_warnings(found))
    if arguments.json:
        print(json.dumps(found | _retention_in_seconds(kept)))
        return 0
    for name, value in _lines(found, kept):
        print(f"{name:14} {value}")
    for warning in found["warnings"]:
        print(f"warning: {warning}")
    return 0


def _read(connection: Connection, schema: Schema) -> tuple[dict[str, Any], RetentionStatus]:
    require_revision(connection, schema.name, _FIRST_REVISION, what="status")
    found = {"schema": schema.name, "revision": require_tables(connection, schema.name)}
    found |= connection.execute(status(schema)).mappings().one()
    return found, RetentionStatus.read(connection, schema)


def _exceptions(found: dict[str, Any]) -> str:
    if not found["durability_holds"]:
        return ", new messages are not yet"
    return "" if found["is_durable"] == (found["durability"] == "durable") else ", some older messages are not"


def _lines(found: dict[str, Any], kept: RetentionStatus) -> Iterator[tuple[str, str]]:
    ago, oldest = found["rotated_seconds_ago"], found["waiting_seconds"]
    yield "schema", f"{found['schema']}, revision {found['revision']}, PostgreSQL {found['postgresql']}"
    rotated = "empty: nothing was sent yet" if ago is None else f"rotated {ago:.0f} s ago"
    yield "log", f"{_size(found['log_bytes'])} in {found['slots']} slots, {rotated}"
    if found["durability"] is not None:
        yield "durability", f"{found['durability']}{_exceptions(found)}"
    set_to = in_units(kept.set_to) if kept.set_to else "nothing"
    yield "retention", f"{in_units(kept.kept)} (set to {set_to}; layers need {in_units(kept.needed)})"
    for topic, duration in _topics(kept):
        yield "", f"{duration} for {topic}"
    ended = found["nodes_that_ended"]
    yield "nodes", f"{found['nodes']}{f', and {ended} that ended without closing' if ended else ''}"
    yield "topics", f"{found['topics']} with subscribers"
    waiting = "" if oldest is None else f", the oldest for {oldest:.0f} s"
    claimed = f"{found['in_progress']} in progress, {found['dead_letters']} dead letters"
    yield "queues", f"{found['queues']}, {found['waiting']} messages wait{waiting}; {claimed}"
    yield "transactions", f"{found['undelivered_transactions']} to deliver, outbox {_size(found['outbox_bytes'])}"
    yield "notifications", f"{found['notification_queue_used']:.0%} of PostgreSQL's queue is in use"


def _topics(kept: RetentionStatus) -> Iterator[tuple[str, str]]:
    for (prefix, topic), duration in kept.topics.items():
        yield topic if prefix == DEFAULT_PREFIX else f"{topic} (prefix {prefix})", in_units(duration)


def _retention_in_seconds(kept: RetentionStatus) -> dict[str, Any]:
    seconds = timedelta.total_seconds
    topics = [
        {"prefix": prefix, "topic": topic, "seconds": seconds(duration)}
        for (prefix, topic), duration in kept.topics.items()
    ]
    return {
        "retention_seconds": seconds(kept.kept),
        "retention_set_seconds": seconds(kept.set_to),
        "retention_needed_seconds": seconds(kept.needed),
        "kept_topics": topics,
    }


def _warnings(found: dict[str, Any]) -> Iterator[str]:
    if found["revision"] not in REVISIONS:
        yield f"this version of pgchannels knows the tables up to revision {REVISIONS[-1]}"
    if found["durability_holds"] is False:
        yield f"the log is not yet {found['durability']}: run `pgchannels durability {found['durability']}`"
    if not found["nodes"]:
        return  # nobody rotates the log, and nobody needs that
    if found["is_overdue"]:
        yield "the log cannot rotate, and grows: another session holds locks on rows of log_state or stripe"
    if found["locked_slots"]:
        yield f"{found['locked_slots']} slots cannot be emptied: another session, such as a dump, has locked them"
    if found["notification_queue_used"] > _MUCH_OF_THE_QUEUE:
        yield "PostgreSQL's queue of notifications is filling: a session that listens does not read it"


def _size(number: int) -> str:
    size, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= _KIB and len(units) > 1:
        size /= _KIB
        units.pop(0)
    return f"{size:.3g} {units[0]}"
