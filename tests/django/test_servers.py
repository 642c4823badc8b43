"""A project with several servers: in its settings, its checks and its groups."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.core import checks
from django.db import connections, transaction

from pgchannels import ConfigurationError
from pgchannels.django import PostgresChannelLayer
from pgchannels.django.checks import check_layers, check_tables
from pgchannels.django.configured_layers import configured_layers, main_layer
from pgchannels.servers.placement import rendezvous
from tests.conftest import new_database
from tests.support.django_databases import tcp_road
from tests.support.django_settings import AddDatabase, channel_layers, the_layer
from tests.support.waiting import within

GROUPS = {
    server: next(f"room.{n}" for n in range(100) if rendezvous(["first", "second"], f"topic:asgi:room.{n}") == server)
    for server in ("first", "second")
}


@pytest.fixture
def second_url(server_url: str, template_name: str) -> Iterator[str]:
    """Another fresh database with the schema."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield url


@pytest.fixture
async def aliases(owner_url: str, second_url: str, add_database: AddDatabase) -> AsyncIterator[list[str]]:
    """Two databases of the settings."""
    async with tcp_road(owner_url) as first, tcp_road(second_url) as second:
        add_database("first", first)
        add_database("second", second)
        yield ["first", "second"]


async def test_groups_on_both_databases_reach_a_channel(aliases: list[str]) -> None:
    with channel_layers(databases=aliases):
        layer = the_layer()
        channel = await layer.new_channel()
        for group in GROUPS.values():
            await layer.group_add(group, channel)
            await layer.group_add(group, "jobs")
            await layer.group_send(group, {"type": "hello", "group": group})
            assert await within(layer.receive(channel)) == {"type": "hello", "group": group}
            assert await within(layer.receive("jobs")) == {"type": "hello", "group": group}
            await layer.group_discard(group, channel)
            await layer.group_send(group, {"type": "for.the.queue"})
            assert await within(layer.receive("jobs")) == {"type": "for.the.queue"}
        for group in GROUPS.values():
            await layer.group_send(group, {"type": "nobody.gets.this"})
        await layer.flush()
        await layer.send(channel, {"type": "last"})
        await layer.send("jobs", {"type": "last"})
        assert await within(layer.receive(channel)) == {"type": "last"}
        assert await within(layer.receive("jobs")) == {"type": "last"}
        await layer.close()


async def test_pinned_group_takes_part_in_transactions(aliases: list[str]) -> None:
    with channel_layers(databases=aliases, pinned={GROUPS["second"]: "first"}, using="first"):
        layer = the_layer()
        async with await layer.subscribe(*GROUPS.values()) as subscription:
            await asyncio.to_thread(send_in_transaction, layer)
            payloads = [(await within(anext(subscription))).payload["text"] for _ in range(2)]
            assert sorted(payloads) == sorted(GROUPS)
        await layer.close()


def send_in_transaction(layer: PostgresChannelLayer) -> None:
    """Send to both groups in one block."""
    with transaction.atomic(using="first"):
        for server, group in GROUPS.items():
            layer.sync.group_send(group, {"type": "hello", "text": server})
    connections["first"].close()
    layer.sync.close()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"databases": "first"}, "list of aliases"),
        ({"databases": []}, "list of aliases"),
        ({"databases": ["first", "none"]}, "'none'"),
        ({"databases": ["first", 5]}, "5"),
        ({"databases": ["first", "first"]}, "'first' twice"),
        ({"databases": ["first"], "also_receive_from": ["second", "second"]}, "'second' twice"),
        ({"databases": ["first"], "database": "first"}, "'databases' and 'database'"),
        ({"databases": ["first"], "urls": ["postgresql://localhost/a"]}, "'databases' and 'urls'"),
        ({"databases": ["first"], "NAME": "a"}, "'databases' and 'NAME'"),
        ({"urls": "postgresql://localhost/a"}, "list of URLs"),
        ({"urls": ["mysql://localhost/a"]}, "postgresql://user:password@host"),
        ({"database": "first", "pinned": {"*": "first"}}, "pinned"),
        ({"databases": ["first"], "pinned": {"*": "second"}}, "pinned"),
        ({"databases": ["first"], "listen_url": "postgresql://localhost/a"}, "listen_url leads to one database"),
    ],
)
async def test_impossible_servers_are_an_error_of_the_settings(
    aliases: list[str], config: dict[str, Any], text: str
) -> None:
    assert aliases
    with pytest.raises(ConfigurationError, match=text):
        PostgresChannelLayer(**config)
    with channel_layers(**config):
        [message] = check_layers()
        assert message.id == "pgchannels.E003"
        assert text in message.msg


def test_checks_refuse_one_database_under_two_names() -> None:
    with channel_layers(urls={"a": "postgresql://localhost/same", "b": "postgresql://localhost/same"}):
        [message] = check_layers()
        assert message.id == "pgchannels.E003"
        assert "'a' and 'b' are the same" in message.msg


async def test_checks_look_at_each_database(
    aliases: list[str], empty_database_url: str, add_database: AddDatabase
) -> None:
    async with tcp_road(empty_database_url) as empty:
        add_database("empty", empty)
        with channel_layers(databases=aliases, also_receive_from=[*aliases, "empty"]):
            assert [layer.alias for layer in configured_layers()] == [*aliases, "empty"]
            main = main_layer()
            assert main is not None
            assert main.alias == "first"
            found = await asyncio.to_thread(found_by_checks, [*aliases, "empty"])
            assert [(message.id, "'empty'" in message.msg) for message in found] == [("pgchannels.W003", True)]


async def test_checks_look_at_each_server_outside_of_databases(owner_url: str, empty_database_url: str) -> None:
    for servers in ({"a": owner_url, "b": empty_database_url}, {"b": empty_database_url, "a": owner_url}):
        with channel_layers(urls=servers):
            [message] = await asyncio.to_thread(found_by_checks, ["default"])
            assert message.id == "pgchannels.W003"
            assert "the server 'b' of the layer 'default'" in message.msg
            assert message.hint == "`manage.py pgchannels upgrade` creates or upgrades them."


def found_by_checks(aliases: list[str]) -> list[checks.CheckMessage]:
    """What the checks of these databases say."""
    found = check_tables(databases=aliases)
    for alias in aliases:
        connections[alias].close()
    return found
