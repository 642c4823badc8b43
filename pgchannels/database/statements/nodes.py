"""Statements about nodes, their leases, and what they host."""

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Executable,
    Integer,
    Interval,
    Select,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    table,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_or_update

from pgchannels.database.statements.reading import extent_columns
from pgchannels.database.tables import Schema
from pgchannels.names import node_address

_NO_SESSION: Final = text("'-infinity'::timestamptz")


def listen(schema: Schema) -> Select[Any]:
    """Make a session listen for a node; see `listen.sql`. The one parameter is the node."""
    return select(schema.call("listen", bindparam("node", type_=Uuid)))


def beat(schema: Schema) -> Select[Any]:
    """Register a node or renew its lease, and send it a notification that it must hear. See `beat.sql`.

    The parameters are in the order below. The first columns are the version, and whether PostgreSQL had room for the
    notification; the others are those of `extent`.
    """
    beating = schema.call(
        "beat",
        bindparam("node", type_=Uuid),
        bindparam("name", type_=Text),
        bindparam("lease", type_=Interval),
        bindparam("retention", type_=Interval),
        bindparam("token", type_=Text),
        bindparam("host", type_=Text),
        bindparam("process_id", type_=Integer),
        bindparam("process", type_=Text),
        bindparam("address", type_=Text),
    ).table_valued(
        column("version", BigInteger), column("is_told", Boolean), column("has_undelivered", Boolean), *extent_columns()
    )
    return select(*beating.c)


def disown_session(schema: Schema, node: UUID) -> Executable:
    """Record that a node has no session of its own, after `beat` has noted the one that it ran in."""
    return update(schema.node).where(schema.node.c.id == node).values(session_began_at=_NO_SESSION)


def host(schema: Schema) -> Select[tuple[int | None, int | None]]:
    """Subscribe a node to addresses, and end its subscriptions to others; returns the log's identity and a position.

    See `host.sql`. The parameters are in the order below.
    """
    hosting = schema.call(
        "host",
        bindparam("node", type_=Uuid),
        bindparam("known_version", type_=BigInteger),
        bindparam("next_version", type_=BigInteger),
        bindparam("added", type_=ARRAY(Text)),
        bindparam("removed", type_=ARRAY(Text)),
        bindparam("is_marked", type_=Boolean),
    ).table_valued(column("identity", BigInteger), column("position", BigInteger))
    return select(hosting.c.identity, hosting.c.position)


def remove_node(schema: Schema, node: UUID) -> Executable:
    """Remove a node and all that it hosts."""
    return select(schema.call("remove_nodes", cast(literal([node], ARRAY(Uuid)), ARRAY(Uuid))))


def remove_ended_nodes(schema: Schema) -> Select[Any]:
    """Remove the nodes whose leases have ended: the session of a stopped process keeps notifications in the queue."""
    ended = select(func.array_agg(schema.node.c.id)).where(schema.node.c.leased_until < func.now()).scalar_subquery()
    return select(schema.call("remove_nodes", ended))


def remove_nodes_of(schema: Schema, prefix: str) -> Executable:
    """Remove all nodes of a prefix, whether they live or not."""
    own = func.starts_with(schema.lease.c.address, node_address(prefix, ""))
    nodes = select(func.array_agg(schema.lease.c.node)).where(own).scalar_subquery()
    return select(schema.call("remove_nodes", nodes))


def remove_deaf_nodes(schema: Schema) -> Executable:
    """Remove the nodes whose sessions are gone, such as those of killed processes, before their leases end.

    Nodes that poll have no sessions.
    """
    activity = table("pg_stat_activity", column("pid", Integer), schema="pg_catalog")
    sessions = select(schema.node.c.id).join(activity, activity.c.pid == schema.node.c.pid)
    polling = select(schema.node.c.id).where(schema.node.c.session_began_at == _NO_SESSION)
    hearing = union_all(sessions, polling).subquery()
    is_there = select(hearing).where(hearing.c.id == schema.lease.c.node).exists()
    deaf = select(func.array_agg(schema.lease.c.node)).where(~is_there).scalar_subquery()
    return select(schema.call("remove_nodes", deaf))


def mark_full(schema: Schema, node: UUID, channels: Collection[str]) -> Executable:
    """Make senders to these channels of a node fail."""
    named = (
        func.unnest(cast(literal(list(channels), ARRAY(Text)), ARRAY(Text)))
        .table_valued("channel")
        .render_derived(name="named")
    )
    full = (
        select(named.c.channel, schema.node.c.id)
        .join_from(schema.node, named, true())
        .where(schema.node.c.id == node)
        # Locked, so that a removal of the node waits and removes these, too.
        .with_for_update(read=True, key_share=True, of=schema.node)
    )
    statement = insert_or_update(schema.full_channel).from_select(["channel", "node"], full)
    return statement.on_conflict_do_nothing()


def mark_not_full(schema: Schema, channels: Collection[str]) -> Executable:
    """Undo `mark_full`."""
    return delete(schema.full_channel).where(
        schema.full_channel.c.channel == any_(literal(list(channels), ARRAY(Text)))
    )


def note_flushed(schema: Schema, node: UUID, until: int) -> Executable:
    """Record that a node has forgotten everything before a message, by its id."""
    return update(schema.node).where(schema.node.c.id == node).values(flushed_until=until)


def nodes_to_flush(schema: Schema, prefix: str) -> Executable:
    """Return the log's identity and, for each living node with the prefix, its address, and up to which id it was
    flushed, None for a node that is not back after a restart of the server. Without a living node, one row with None.
    """
    lease, node, subscription = schema.lease, schema.node, schema.subscription
    registered = (
        select(subscription.c.address, node.c.flushed_until)
        .join_from(subscription, node, subscription.c.node == node.c.id)
        .where(subscription.c.address == lease.c.address)
        .lateral()
    )
    living = (
        select(lease.c.address, registered.c.flushed_until)
        .join_from(lease, registered, true(), isouter=True)
        .where(lease.c.address.startswith(f"node:{prefix}:", autoescape=True), lease.c.leased_until > func.now())
        .subquery()
    )
    return select(schema.log_state.c.identity, *living.c).join_from(schema.log_state, living, true(), isouter=True)
