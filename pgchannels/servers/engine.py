"""What a layer runs on: one database, or several servers."""

from collections.abc import Callable
from typing import TypeAlias

from pgchannels.arguments import refusal
from pgchannels.database.database import Database, Password
from pgchannels.database.url import DatabaseTarget
from pgchannels.messages import Gap
from pgchannels.options import Options
from pgchannels.points import PointOrText
from pgchannels.process.node import Node
from pgchannels.process.process import Process
from pgchannels.receiving.mailbox import WhenFull
from pgchannels.servers.nodes import Nodes
from pgchannels.servers.placement import Pins, Placement
from pgchannels.servers.servers import Servers
from pgchannels.servers.subscription import SubscriptionToServers
from pgchannels.servers.targets import ServerTargets, databases_of, is_one, require_no_listen_url, targets_by_name
from pgchannels.subscription import Subscription

Engine: TypeAlias = Process | Servers


def engine_of(
    database: DatabaseTarget | ServerTargets,
    options: Options,
    *,
    password: Password | None,
    pinned: Pins | None,
    also_receive_from: ServerTargets | None,
    also_pinned: Pins | None,
) -> Engine:
    """Return what a layer runs on.

    :raises ConfigurationError: the databases cannot be used, or an option needs several servers.
    """
    if is_one(database):
        require_one_server(pinned=pinned, also_receive_from=also_receive_from, also_pinned=also_pinned)
        return Process(Database(database, password=password), options)
    require_no_listen_url(options.listen_url)
    targets = targets_by_name("database", database)
    also = {} if also_receive_from is None else targets_by_name("also_receive_from", also_receive_from)
    placement = Placement(tuple(targets), also=tuple(also), pinned=pinned, also_pinned=also_pinned)
    return Servers(databases_of(targets, also, password=password), options, placement)


def require_one_server(**options: object) -> None:
    """Require that a layer with one database has no option of several servers.

    :raises ConfigurationError: it has one.
    """
    for name, value in options.items():
        if value is not None:
            raise refusal(name, value, "left out with one database; servers are given by their names, {'a': url}")


def subscription_on(
    engine: Engine,
    node_here: Callable[[], Node | Nodes],
    topics: tuple[str, ...],
    *,
    since: PointOrText | None,
    capacity: int,
    when_full: WhenFull,
    on_gap: Callable[[Gap], None] | None,
) -> Subscription:
    """Return a subscription to valid topics.

    :param node_here: what receives in the running loop; raises an error if the layer is not open there.
    """
    if isinstance(engine, Servers):
        return SubscriptionToServers(
            lambda servers: _nodes(node_here()).on(servers),
            topics,
            servers_of=engine.servers_of,
            first=engine.placement.names[0],
            since=since,
            capacity=capacity,
            when_full=when_full,
            on_gap=on_gap,
        )
    return Subscription(
        lambda: _node(node_here()), topics, since=since, capacity=capacity, when_full=when_full, on_gap=on_gap
    )


def _nodes(here: Node | Nodes) -> Nodes:
    assert isinstance(here, Nodes)
    return here


def _node(here: Node | Nodes) -> Node:
    assert isinstance(here, Node)
    return here
