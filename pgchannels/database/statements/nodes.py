"""Statements about nodes, their leases, and what they host."""

from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from sqlalchemy import BigInteger, Executable, Text, Uuid, cast, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_or_update

from pgchannels.database.tables import Schema


def register_node(schema: Schema, node: UUID, name: str, *, lease: timedelta) -> Executable:
    """Give a node its lease, a new one or a longer one."""
    statement = insert_or_update(schema.node).values(id=node, name=name, leased_until=func.now() + lease)
    return statement.on_conflict_do_update(
        index_elements=[schema.node.c.id], set_={"leased_until": statement.excluded.leased_until}
    )


def extend_lease(schema: Schema, node: UUID, *, lease: timedelta) -> Executable:
    """Renew a lease; returns a row unless the node was removed meanwhile."""
    statement = update(schema.node).where(schema.node.c.id == node).values(leased_until=func.now() + lease)
    return statement.returning(schema.node.c.id)


def host(schema: Schema, node: UUID, addresses: Collection[str]) -> Executable:
    """Subscribe a node to addresses; see `host.sql` for the position that this returns."""
    listed = literal(list(addresses), ARRAY(Text))
    return select(cast(schema.call("host", literal(node, Uuid), cast(listed, ARRAY(Text))), BigInteger))


def host_for(schema: Schema, node_name: str, address: str) -> Executable:
    """Subscribe another node to an address; no row where there is no such node."""
    hosting = schema.call("host", schema.node.c.id, cast(literal([address], ARRAY(Text)), ARRAY(Text)))
    return select(hosting).where(schema.node.c.name == node_name)


def count_hosted(schema: Schema, node: UUID) -> Executable:
    """How many addresses the database knows that a node hosts."""
    return select(func.count()).where(schema.subscription.c.node == node)


def unhost(schema: Schema, node: UUID, addresses: Collection[str]) -> Executable:
    """Undo `host` for these addresses."""
    subscription = schema.subscription
    return delete(subscription).where(subscription.c.node == node, subscription.c.address.in_(addresses))


def remove_node(schema: Schema, node: UUID) -> Executable:
    """Remove a node and all that it hosts."""
    removed = delete(schema.node).where(schema.node.c.id == node).returning(schema.node.c.id).cte("removed")
    hosted = schema.subscription
    unhosted = delete(hosted).where(hosted.c.node == node).returning(hosted.c.node).cte("unhosted")
    return select(func.count()).select_from(unhosted).add_cte(removed)


def remove_expired_nodes(schema: Schema) -> Executable:
    """Remove the nodes whose lease has ended and all that they hosted; returns how many rows of that there were."""
    node, hosted = schema.node, schema.subscription
    removed = delete(node).where(node.c.leased_until < func.now()).returning(node.c.id).cte("removed")
    unhosted = delete(hosted).where(hosted.c.node.in_(select(removed.c.id))).returning(hosted.c.node).cte("unhosted")
    return select(func.count()).select_from(unhosted)


def probe(node: UUID, token: str) -> Executable:
    """Send a node a notification that it must hear."""
    return select(func.pg_notify(str(node), f"p {token}"))


def addresses_of_nodes(schema: Schema, prefix: str) -> Executable:
    """The node addresses of all nodes with the prefix."""
    address = schema.subscription.c.address
    return select(address).where(address.startswith(f"node:{prefix}:", autoescape=True))


def keep_messages_for(schema: Schema, retention: timedelta) -> Executable:
    """Make the log keep messages for this long at least."""
    return update(schema.log).where(schema.log.c.retention < retention).values(retention=retention)


def rotate(schema: Schema) -> Executable:
    """Rotate the log's slots when it is time; see `rotate.sql`."""
    return select(schema.call("rotate"))
