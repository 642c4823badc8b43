"""`pgchannels retention`: show or set how long the log keeps messages."""

import argparse
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

from sqlalchemy import Connection

from pgchannels.arguments import TEN_YEARS, refusal, shown
from pgchannels.cli.target import add_target, in_transaction
from pgchannels.database.revision import require_tables
from pgchannels.database.statements.retention import keep_topics_for, kept_topics, retention, set_retention
from pgchannels.database.tables import Schema, schema_named
from pgchannels.errors import ConfigurationError
from pgchannels.names import DEFAULT_PREFIX, require_valid_prefix, require_valid_schema, require_valid_topic

_UNITS: Final = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_DURATION: Final = re.compile(rf"(?P<number>[0-9]{{1,9}}(?:\.[0-9]{{1,6}})?)\s*(?P<unit>{'|'.join(_UNITS)})")


@dataclass(frozen=True, slots=True)
class RetentionStatus:
    """How long the log keeps messages, what was set, what layers need, and the topics that are kept for longer.

    The topics are given by prefix and name; one with '*' at its end stands for all that begin so.
    """

    kept: timedelta
    set_to: timedelta
    needed: timedelta
    topics: dict[tuple[str, str], timedelta]

    @classmethod
    def read(cls, connection: Connection, schema: Schema) -> Self:
        """Read it from the database."""
        topics = dict[tuple[str, str], timedelta]()
        for address, is_pattern, duration in connection.execute(kept_topics(schema)):
            _, prefix, topic = address.split(":", 2)
            topics[prefix, topic + "*" * is_pattern] = duration
        kept, set_to, needed = connection.execute(retention(schema)).one()
        return cls(kept, set_to, needed, topics)


def add_retention_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("retention", help="show or set how long the log keeps messages")
    parser.add_argument("duration", nargs="?", help="such as 90s, 30min, 1h or 2d; 0s for as long as layers need")
    parser.add_argument("--topic", help="set it for a topic, or for all that begin so, such as 'orders.*'")
    parser.add_argument("--prefix", default=DEFAULT_PREFIX, help="of the topic's layers, by default %(default)s")
    add_target(parser)
    parser.set_defaults(run=_retention)


def duration_of(text: str) -> timedelta:
    """Read a duration such as `90s`, `30min`, `1h` or `2d`.

    :raises ConfigurationError: the text is anything else, or longer than ten years.
    """
    read = _DURATION.fullmatch(text.strip())
    seconds = float(read["number"]) * _UNITS[read["unit"]] if read else None
    if seconds is None or seconds > TEN_YEARS:
        raise refusal("the retention", text, "a number with a unit, such as 90s, 30min, 1h or 2d, at most 3650d")
    return timedelta(seconds=seconds)


def in_units(duration: timedelta) -> str:
    """Return a duration as `duration_of` reads it."""
    seconds = duration.total_seconds()
    name, size = next(((name, size) for name, size in _UNITS.items() if seconds and seconds % size == 0), ("s", 1))
    return f"{seconds / size:g}{name}"


def require_topic_pattern(pattern: str) -> str:
    """Return a topic, or the beginning of topics with '*' at its end.

    :raises ConfigurationError: it is neither.
    """
    beginning = pattern.removesuffix("*")
    if "*" in beginning:
        raise ConfigurationError(f"--topic {shown(pattern)}: a pattern has one '*', at its end, such as 'orders.*'")
    if beginning or not pattern:
        require_valid_topic(beginning)
    return pattern


def _retention(arguments: argparse.Namespace) -> int:
    schema = schema_named(require_valid_schema(arguments.schema))
    chosen = None if arguments.duration is None else duration_of(arguments.duration)
    topic = None if arguments.topic is None else require_topic_pattern(arguments.topic)
    prefix = require_valid_prefix(arguments.prefix)
    if topic is not None and chosen is None:
        raise ConfigurationError(f"say for how long {topic} is kept: `pgchannels retention 7d --topic '{topic}'`")

    def apply(connection: Connection) -> RetentionStatus:
        require_tables(connection, schema.name)
        if chosen is not None and topic is not None:
            connection.execute(keep_topics_for(schema, topic, prefix, chosen))
        elif chosen is not None:
            connection.execute(set_retention(schema, chosen))
        return RetentionStatus.read(connection, schema)

    _print(in_transaction(arguments, apply))
    return 0


def _print(status: RetentionStatus) -> None:
    print(f"The log keeps messages for at least {in_units(status.kept)}.")
    print(f"set to          {in_units(status.set_to) if status.set_to else 'nothing: as long as layers need'}")
    print(f"layers need     {in_units(status.needed)}")
    for (prefix, topic), duration in status.topics.items():
        print(f"{topic:15} {in_units(duration)}{'' if prefix == DEFAULT_PREFIX else f' (prefix {prefix})'}")
