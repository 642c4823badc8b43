"""The pages `transactions` and `sql-and-triggers`: every block runs, and does what the page says."""

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg

from pgchannels import MessageLayer
from pgchannels.cli import main
from tests.support.snippets import ROOT, snippets
from tests.support.waiting import within

TRANSACTIONS, SQL = "docs/how-to/transactions.md", "docs/how-to/sql-and-triggers.md"
ORDERS = "CREATE TABLE orders (id serial PRIMARY KEY, customer_id int, customer int, notes text)"


def run(block: str, url: str) -> str:
    """Run a block as a program; return what it prints."""
    address = url.partition("://")[2]
    text = block.replace("user:password@localhost/mydb", address)
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], check=False, capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    return finished.stdout


async def test_each_kind_of_connection_publishes(
    owner_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(ORDERS)
    session, drivers, threads, _, retry = snippets(TRANSACTIONS)
    async with layer.subscribe("orders") as subscription:
        assert await asyncio.to_thread(run, session, owner_url) == "{'customer': 7}\n"
        for block in (drivers, threads, retry):
            await asyncio.to_thread(run, block, owner_url)
        payloads = [(await within(anext(subscription))).payload for _ in range(6)]
    assert payloads == [{"customer": 7}, *({"number": number} for number in (1, 2, 3, 4, 7))]
    assert await connection.fetchval("SELECT customer FROM orders") == 7


async def test_sql_publishes_and_watches_a_table(
    owner_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(ORDERS)
    calls, trigger = snippets(SQL, "sql")
    async with layer.subscribe("orders", "news", "orders.7") as subscription:
        await connection.execute(calls)
        assert [(await within(anext(subscription))).payload for _ in range(4)] == [{"number": 7}] * 2 + [1, 2]
        assert await within(layer.receive("thumbnails")) == {"image": 5}
        await connection.execute(trigger)
        await connection.execute("INSERT INTO orders (customer_id, notes) VALUES (7, 'secret')")
        change = (await within(anext(subscription))).payload
    rows = (ROOT / SQL).read_text().partition("| key | holds |")[2].partition("\n\n")[0]
    assert {key for key in change if f"`{key}`" in rows} == change.keys()
    assert "notes" not in change["new"]


async def test_four_more_ways_make_the_same_trigger(
    owner_url: str, connection: "asyncpg.Connection[asyncpg.Record]", layer: MessageLayer
) -> None:
    await connection.execute(ORDERS)
    page = (ROOT / SQL).read_text()
    for text in ("publish_row_changes('orders', 'orders.{customer_id}', '{notes}')", "stop_row_changes('orders')"):
        assert f"`SELECT pgchannels.{text}`" in page
        await connection.execute(f"SELECT pgchannels.{text}")
    for text in ("watch orders --topic orders.{customer_id} --without notes", "unwatch orders"):
        assert f"`pgchannels {text}" in page
        assert await asyncio.to_thread(main, [*text.split(), "--url", owner_url]) == 0


MANAGE = """
import pathlib
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["pgchannels.django", "shop"], DATABASES={{"default": {database!r}}}, USE_TZ=True,
    CHANNEL_LAYERS={{"default": {{"BACKEND": "pgchannels.django.PostgresChannelLayer",
    "CONFIG": {{"database": "default"}}}}}})
django.setup()
from django.core.management import call_command
call_command("makemigrations", "shop", verbosity=0)
path = pathlib.Path("shop/migrations/0001_initial.py")
written = path.read_text()
assert "dependencies = [" in written
path.write_text(written.replace("dependencies = [", 'dependencies = [("pgchannels", "0001_log"), '))
call_command("migrate", verbosity=0)
from django.db import transaction
from shop.models import Order
from channels.layers import get_channel_layer
with transaction.atomic():
    Order.objects.create(customer_id=7, notes="secret")
{block}
place_order(7)
get_channel_layer().sync.close()
"""


async def test_model_is_watched_by_the_migration_and_a_view_sends_with_its_transaction(
    empty_database_url: str, tmp_path: Path
) -> None:
    from tests.support.django_databases import django_database

    (tmp_path / "shop").mkdir()
    for name, text in (("__init__", ""), ("models", snippets(SQL)[0])):
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    block = next(block for block in snippets(TRANSACTIONS) if "place_order" in block)
    program = MANAGE.format(database=django_database(empty_database_url), block=block)
    finished = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    async with MessageLayer(empty_database_url) as layer:
        [change] = await layer.history("orders.7")
        assert (change.payload["table"], change.payload["new"]["customer_id"]) == ("shop_order", 7)
        assert [message.payload for message in await layer.history("orders")] == [
            {"type": "order.placed", "customer": 7}
        ]
