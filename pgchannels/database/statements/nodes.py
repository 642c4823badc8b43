"""Statements about nodes, their leases, and what they host."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Executable,
    Interval,
    Select,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    table,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_or_update

from pgchannels.database.tables import Schema


def register_node(schema: Schema, node: UUID, name: str, *, lease: timedelta) -> Executable:
    """Give a node its lease, a new one or a longer one."""
    statement = insert_or_update(schema.node).values(id=node, name=name, leased_until=func.now() + lease)
    return statement.on_conflict_do_update(
        index_elements=[schema.node.c.id], set_={"leased_until": statement.excluded.leased_until}
    )


def beat(schema: Schema, node: UUID, token: str, *, lease: timedelta) -> Executable:
    """Renew a lease and send the node a notification that it must hear; see `beat.sql` for what this returns."""
    return select(schema.call("beat", literal(node, Uuid), literal(lease, Interval), literal(token, Text)))


def host(schema: Schema) -> Select[tuple[int | None]]:
    """Subscribe a node to addresses; see `host.sql` for the position. Parameters in the order of their mention."""
    hosting = schema.call("host", bindparam("node", type_=Uuid), bindparam("addresses", type_=ARRAY(Text)))
    return select(cast(hosting, BigInteger))


def host_for(schema: Schema, node_name: str, address: str) -> Executable:
    """Subscribe another node to an address; no row, or NULL, where there is no such node."""
    hosting = schema.call("host", schema.node.c.id, cast(literal([address], ARRAY(Text)), ARRAY(Text)))
    return select(hosting).where(schema.node.c.name == node_name)


def unhost(schema: Schema, node: UUID, addresses: Collection[str]) -> Executable:
    """Undo `host` for these addresses."""
    subscription = schema.subscription
    return delete(subscription).where(subscription.c.node == node, subscription.c.address.in_(addresses))


def remove_node(schema: Schema, node: UUID) -> Executable:
    """Remove a node and all that it hosts."""
    return select(schema.call("remove_nodes", cast(literal([node], ARRAY(Uuid)), ARRAY(Uuid))))


def remove_deaf_nodes(schema: Schema) -> Executable:
    """Remove the nodes that no session listens for, whose processes were killed, before their leases end.

    For tests, where one role owns all sessions: of those of others the database does not tell what they listen on.
    """
    activity = table("pg_stat_activity", column("datname", Text), column("query", Text), schema="pg_catalog")
    is_heard = (
        select(activity.c.datname)
        .where(activity.c.datname == func.current_database())
        .where(activity.c.query == func.concat('LISTEN "', schema.node.c.id, '"'))
        .exists()
    )
    deaf = select(func.array_agg(schema.node.c.id)).where(~is_heard).scalar_subquery()
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
        # Locked, so that whoever removes the node comes later and removes these, too.
        .with_for_update(read=True, key_share=True, of=schema.node)
    )
    statement = insert_or_update(schema.full_channel).from_select(["channel", "node"], full)
    return statement.on_conflict_do_nothing()


def mark_not_full(schema: Schema, channels: Collection[str]) -> Executable:
    """Undo `mark_full`."""
    return delete(schema.full_channel).where(schema.full_channel.c.channel.in_(channels))


def addresses_of_nodes(schema: Schema, prefix: str) -> Executable:
    """The node addresses of all nodes with the prefix."""
    address = schema.subscription.c.address
    return select(address).where(address.startswith(f"node:{prefix}:", autoescape=True))


def note_flushed(schema: Schema, node: UUID, until: int) -> Executable:
    """Note that a node has forgotten what came before a message, by its id."""
    return update(schema.node).where(schema.node.c.id == node).values(flushed_until=until)


def count_unflushed(schema: Schema, prefix: str, until: int) -> Executable:
    """How many living nodes with the prefix have not forgotten what came before a message."""
    node, subscription = schema.node, schema.subscription
    is_of_prefix = subscription.c.address == func.concat(f"node:{prefix}:", node.c.name)
    return (
        select(func.count())
        .select_from(node.join(subscription, (subscription.c.node == node.c.id) & is_of_prefix))
        .where(node.c.flushed_until < until, node.c.leased_until > func.now())
    )


def keep_messages_for(schema: Schema, retention: timedelta) -> Executable:
    """Make the log keep messages for this long at least."""
    return update(schema.log).where(schema.log.c.retention < retention).values(retention=retention)


def rotate(schema: Schema) -> Executable:
    """Rotate the log's slots when it is time; see `rotate.sql`."""
    return select(schema.call("rotate"))
