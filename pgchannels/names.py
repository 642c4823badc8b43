"""Names of topics, channels, prefixes and schemas, and the addresses under which the database knows them."""

import re
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from uuid import UUID, uuid4

from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS

from pgchannels.arguments import shown
from pgchannels.errors import InvalidName

DEFAULT_PREFIX: Final = "asgi"
DEFAULT_SCHEMA: Final = "pgchannels"
DEAD_LETTERS: Final = ".dead"  # the end of the name of a queue for what failed in another

# The limit of Channels: its names are shorter than 100 characters.
_LONGEST_NAME = 99
_LONGEST_KIND = _LONGEST_NAME - len(f".{bytes(8).hex()}!{bytes(8).hex()}")  # what makes a name unique
_TOPIC = re.compile(r"[a-zA-Z0-9\-_.:/@]+")
_CHANNEL = re.compile(r"[a-zA-Z0-9\-_.]+(![a-zA-Z0-9\-_.]*)?")
_PREFIX = re.compile(r"[a-zA-Z0-9\-_.]{1,50}")
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies a node. Without the 122 random bits of `id`, nobody can listen as the node or notify it."""

    id: UUID
    name: str

    @classmethod
    def new(cls, name: str | None = None) -> Self:
        """Return an identity that no other node has; the nodes of one event loop on several servers share a name."""
        return cls(uuid4(), name or new_node_name())


def require_valid_topic(name: object) -> str:
    """Return the name, or raise `InvalidName`."""
    if isinstance(name, str) and len(name) <= _LONGEST_NAME and _TOPIC.fullmatch(name):
        return str.__str__(name)  # an enumeration formats as the name of its member
    raise InvalidName(
        f"{shown(name)} is no topic: a topic is a str of 1 to {_LONGEST_NAME} ASCII letters, digits and '-_.:/@'"
    )


def require_valid_channel(name: object) -> str:
    """Return the name, or raise `InvalidName`."""
    if isinstance(name, str) and is_channel(name):
        return str.__str__(name)
    raise InvalidName(
        f"{shown(name)} is no channel: a channel is a str of 1 to {_LONGEST_NAME} ASCII letters, digits and '-_.',"
        " with at most one '!' after the first of them"
    )


def require_claimable(name: object) -> str:
    """Return the name of a work queue with which that of its dead letters is valid, or raise `InvalidName`."""
    queue = require_valid_channel(name)
    if not is_queue(queue):
        raise InvalidName(f"{queue!r} is no work queue: it has a '!', so it is the channel of one receiver")
    if not queue.endswith(DEAD_LETTERS) and len(queue + DEAD_LETTERS) > _LONGEST_NAME:
        raise InvalidName(
            f"{queue!r} is too long for a queue whose messages are acknowledged: with {DEAD_LETTERS!r} behind it, it is"
            f" the name of the dead letters, so it has at most {_LONGEST_NAME - len(DEAD_LETTERS)} characters"
        )
    return queue


def require_valid_prefix(prefix: object) -> str:
    """Return the prefix, or raise `InvalidName`."""
    if isinstance(prefix, str) and _PREFIX.fullmatch(prefix):
        return str.__str__(prefix)
    raise InvalidName(f"prefix={shown(prefix)}: a prefix is a str of 1 to 50 ASCII letters, digits and '-_.'")


def require_valid_schema(schema: object) -> str:
    """Return the schema's name, or raise `InvalidName`."""
    if isinstance(schema, str) and _SCHEMA.fullmatch(schema) and schema not in RESERVED_WORDS:
        return str.__str__(schema)
    raise InvalidName(
        f"schema={shown(schema)}: a schema is a str of 1 to 63 lower-case letters, digits and '_', begins with"
        " neither a digit nor 'pg_', and is no reserved word of SQL"
    )


def is_channel(name: str) -> bool:
    """Whether the name is valid for a channel."""
    return len(name) <= _LONGEST_NAME and _CHANNEL.fullmatch(name) is not None


def is_queue(channel: str) -> bool:
    """Whether any process may receive from the channel: it has no '!'."""
    return "!" not in channel


def topic_address(prefix: str, topic: str) -> str:
    """Return the address of a topic."""
    return f"topic:{prefix}:{topic}"


def is_topic_address(address: str) -> bool:
    """Whether `topic_address` made the address."""
    return address.startswith("topic:")


def queue_address(prefix: str, channel: str) -> str:
    """Return the address of a channel without '!'."""
    return f"queue:{prefix}:{channel}"


def queue_of_address(address: str) -> str:
    """Return the work queue of an address that `queue_address` made."""
    return address.split(":", 2)[2]


def is_queue_address(address: str) -> bool:
    """Whether `queue_address` made the address."""
    return address.startswith("queue:")


def node_address(prefix: str, node_name: str) -> str:
    """Return the address of the channels of a node."""
    return f"node:{prefix}:{node_name}"


def channel_address(prefix: str, channel: str) -> tuple[str, str | None]:
    """Return the address of a channel, and the name under which its node knows it; None for a work queue."""
    if is_queue(channel):
        return queue_address(prefix, channel), None
    return node_address(prefix, node_name_of(channel)), channel


def topic_of_address(address: str) -> str:
    """Return the topic of an address that `topic_address` made."""
    return address.split(":", 2)[2]


def non_local_part(channel: str) -> str:
    """Return a channel's name up to and including its '!'."""
    return f"{channel.partition('!')[0]}!"


def new_node_name() -> str:
    """Return a name that no other node has; it reveals nothing of the secret that the node listens on."""
    return secrets.token_hex(8)


def program_name() -> str:
    """Return the program that this process runs, such as `uvicorn` or `manage.py`, in ASCII."""
    program = Path(getattr(sys, "argv", [""])[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return "python" if name in ("", "-", "-c", "-m") else name.encode("ascii", "replace").decode()


def new_channel_name(kind: object, node_name: str) -> str:
    """Return a channel name that no other channel has: `kind.node!random`; raises `InvalidName`."""
    if isinstance(kind, str) and is_channel(name := f"{kind}.{node_name}!{secrets.token_hex(8)}"):
        return name
    raise InvalidName(
        f"prefix={shown(kind)}: the prefix of a channel is a str of at most {_LONGEST_KIND} ASCII"
        " letters, digits and '-_.'"
    )


def node_name_of(channel: str) -> str:
    """Return the name of the node that a channel with '!' belongs to."""
    return channel.partition("!")[0].rpartition(".")[2]
