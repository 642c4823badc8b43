"""Sends inside `atomic()`, and models whose changes are published."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, migrations, models, transaction
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.writer import MigrationWriter

from pgchannels import ConfigurationError
from pgchannels.database import migrations as tables
from pgchannels.django import PostgresChannelLayer
from pgchannels.django.row_changes import PublishRowChanges
from tests.support.django_databases import django_database
from tests.support.django_settings import AddDatabase, add_database
from tests.support.waiting import within

__all__ = ["add_database"]


class Abandoned(Exception):
    """Ends a block without a commit."""


@pytest.fixture
def shop(owner_url: str, add_database: AddDatabase) -> str:
    """A database of Django's with the tables; returns its alias."""
    add_database("shop", django_database(owner_url))
    return "shop"


@pytest.fixture
def other(empty_database_url: str, add_database: AddDatabase) -> str:
    """Another database of Django's with the tables; returns its alias."""
    asyncio.run(tables.upgrade(empty_database_url))
    add_database("other", django_database(empty_database_url))
    return "other"


async def in_thread(work: Callable[[], object]) -> None:
    """Run synchronous code as a view of Django's runs, and close its connections."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    await asyncio.to_thread(run)


async def came(layer: PostgresChannelLayer, send: Callable[[PostgresChannelLayer], object]) -> list[Any]:
    """What arrives in a group, and in a queue, of what is sent by synchronous code."""
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_add("room", "jobs")
    await in_thread(lambda: send(layer))
    await layer.group_send("room", {"type": "last"}, using=None)
    found = []
    for name in (channel, "jobs"):
        while (message := await within(layer.receive(name)))["type"] != "last":
            found.append((name == "jobs", message["type"]))
    await layer.close()
    return found


def send_all(layer: PostgresChannelLayer, **options: Any) -> None:
    """Send to the group and to the queue, by both doors."""
    layer.sync.group_send("room", {"type": "sync"}, **options)
    async_to_sync(layer.group_send)("room", {"type": "async"}, **options)
    layer.sync.send("jobs", {"type": "send"}, **options)
    async_to_sync(layer.send)("jobs", {"type": "async send"}, **options)


ALL = [(False, "sync"), (False, "async"), (True, "sync"), (True, "async"), (True, "send"), (True, "async send")]


@pytest.mark.parametrize("by_settings", [False, True])
async def test_sends_inside_atomic_are_delivered_if_and_only_if_it_commits(shop: str, by_settings: bool) -> None:
    options = {} if by_settings else {"using": shop}
    layer = PostgresChannelLayer(database=shop, using=shop if by_settings else None)

    def commits(layer: PostgresChannelLayer) -> None:
        with transaction.atomic(using=shop):
            send_all(layer, **options)
            with suppress(Abandoned), transaction.atomic(using=shop):
                send_all(layer, **options)
                raise Abandoned

    def rolls_back(layer: PostgresChannelLayer) -> None:
        with suppress(Abandoned), transaction.atomic(using=shop):
            send_all(layer, **options)
            raise Abandoned

    assert await came(layer, rolls_back) == []
    assert await came(layer, commits) == ALL


async def test_sends_outside_atomic_and_those_that_say_so_are_delivered_at_once(shop: str) -> None:
    layer = PostgresChannelLayer(database=shop, using=shop)

    def send(layer: PostgresChannelLayer) -> None:
        send_all(layer)
        with suppress(Abandoned), transaction.atomic(using=shop):
            send_all(layer, using=None)
            raise Abandoned

    expected = [*ALL[:2] * 2, (True, "sync"), (True, "async"), *ALL[4:], (True, "sync"), (True, "async"), *ALL[4:]]
    assert await came(layer, send) == expected


async def test_sends_take_part_in_what_a_connection_without_autocommit_does(shop: str) -> None:
    layer = PostgresChannelLayer(database=shop, using=shop)

    def send(layer: PostgresChannelLayer) -> None:
        transaction.set_autocommit(False, using=shop)
        send_all(layer)
        transaction.rollback(using=shop)
        layer.sync.group_send("room", {"type": "kept"})
        transaction.commit(using=shop)

    assert await came(layer, send) == [(False, "kept"), (True, "kept")]


async def test_coroutine_of_an_asgi_server_that_names_a_database_sends_at_once(shop: str) -> None:
    layer = PostgresChannelLayer(database=shop, using=shop)
    channel = await layer.new_channel()
    await layer.send(channel, {"type": "by settings"})
    await layer.send(channel, {"type": "named"}, using=shop)
    assert [(await within(layer.receive(channel)))["type"] for _ in range(2)] == ["by settings", "named"]
    await layer.close()
    await sync_to_async(connections.close_all)()


async def test_other_database_and_unknown_alias_are_refused_by_name(shop: str, other: str) -> None:
    layer = PostgresChannelLayer(database=shop)

    def send() -> None:
        with pytest.raises(ConfigurationError, match="using='nothing' is no alias of DATABASES"):
            layer.sync.group_send("room", {"type": "a"}, using="nothing")
        with (
            transaction.atomic(using=other),
            pytest.raises(ConfigurationError, match="and the layer's is the database"),
        ):
            layer.sync.group_send("room", {"type": "a"}, using=other)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="and the layer's is the database"):
                layer.sync.group_send("room", {"type": "a"}, using=other)
        layer.sync.close()

    await in_thread(send)
    with pytest.raises(ConfigurationError, match="and the layer's is the database"):
        await layer.send("jobs", {"type": "a"}, using=other)
    await layer.close()
    await sync_to_async(connections.close_all)()


class Order(models.Model):
    """A model whose changes are published."""

    customer_id: "models.IntegerField[int, int]" = models.IntegerField(db_column="customer")
    notes: "models.TextField[str, str]" = models.TextField()

    class Meta:
        app_label = "shop"
        constraints = (
            PublishRowChanges(topic="orders.{customer}", without=["notes"], prefix="tests", name="orders_live"),
        )


async def test_changes_of_a_model_are_published_while_the_constraint_is_there(shop: str) -> None:
    layer = PostgresChannelLayer(database=shop, prefix="tests")
    [constraint] = Order._meta.constraints

    def work(layer: PostgresChannelLayer) -> None:
        with connections[shop].schema_editor() as editor:
            editor.create_model(Order)
        order = Order.objects.using(shop).create(customer_id=7, notes="secret")
        layer.sync.group_send("room", {"type": "orders", "n": 1})
        with connections[shop].schema_editor() as editor:
            editor.remove_constraint(Order, constraint)
        order.delete()
        with connections[shop].schema_editor() as editor:
            editor.add_constraint(Order, constraint)
        with transaction.atomic(using=shop):
            Order.objects.using(shop).create(customer_id=7, notes="secret")

    await layer.group_add("orders.7", "changes")
    assert await came(layer, work) == [(False, "orders"), (True, "orders")]
    layer = PostgresChannelLayer(database=shop, prefix="tests")
    changes = [await within(layer.receive("changes")) for _ in range(2)]
    expected = [("row.change", "insert", ["customer", "id"])] * 2
    assert [(change["type"], change["operation"], sorted(change["new"])) for change in changes] == expected
    await layer.close()


def test_makemigrations_finds_and_writes_the_constraint() -> None:
    [constraint] = Order._meta.constraints
    before, after = ProjectState(), ProjectState()
    after.add_model(ModelState.from_model(Order))
    changes = MigrationAutodetector(before, after)._detect_changes()  # type: ignore[attr-defined]
    operations = [operation for migration in changes["shop"] for operation in migration.operations]
    written = MigrationWriter(changes["shop"][0]).as_string()
    assert "pgchannels.django.row_changes.PublishRowChanges" in written
    found = [one for operation in operations for one in constraints_of(operation)]
    assert found == [constraint]
    assert constraint.clone() == constraint
    assert PublishRowChanges(topic="orders", name="orders_live") != constraint


def constraints_of(operation: Any) -> list[Any]:
    """What a migration's operation adds."""
    if isinstance(operation, migrations.AddConstraint):
        return [operation.constraint]
    return list(getattr(operation, "options", {}).get("constraints", ()))


async def test_constraint_before_the_tables_says_which_dependency_is_missing(
    empty_database_url: str, add_database: AddDatabase
) -> None:
    add_database("empty", django_database(empty_database_url))

    def work() -> None:
        with (
            pytest.raises(ConfigurationError, match=r"\('pgchannels', '0001_log'\) into the dependencies"),
            connections["empty"].schema_editor() as editor,
        ):
            editor.create_model(Order)

    await in_thread(work)


async def test_constraint_before_the_tables_is_written_as_sql(
    empty_database_url: str, add_database: AddDatabase
) -> None:
    add_database("empty", django_database(empty_database_url))

    def work() -> None:
        with connections["empty"].schema_editor(collect_sql=True) as editor:
            editor.create_model(Order)
        written = "\n".join(map(str, editor.collected_sql))
        assert written.index("CREATE TABLE") < written.index("publish_row_changes(")

    await in_thread(work)
