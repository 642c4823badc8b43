"""The operations for Alembic, in a revision as in an application."""

import asyncpg
import pytest
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection

import pgchannels.alembic  # noqa: F401 (adds the operations)
from pgchannels import MessageLayer
from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from tests.support.waiting import within


def upgrade() -> None:
    """Make a table whose changes are published."""
    op.execute('CREATE TABLE public.orders (id int, "with:colon" int)')
    op.publish_row_changes("public.orders", topic="orders.{id}", without=["with:colon"], name="live")  # type: ignore[attr-defined]


def downgrade() -> None:
    """Undo it, but for the table."""
    op.stop_row_changes("public.orders", name="live")  # type: ignore[attr-defined]


async def test_revision_begins_and_ends_publishing(
    layer: MessageLayer, owner_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    def run(revision: object) -> object:
        def work(sync: Connection) -> None:
            with Operations.context(MigrationContext.configure(sync)):
                revision()  # type: ignore[operator]

        return work

    async with layer.subscribe("orders.1") as subscription:
        await run_sync(Database(owner_url), run(upgrade))  # type: ignore[arg-type]
        await connection.execute("INSERT INTO orders VALUES (1, 2)")
        assert (await within(anext(subscription))).payload["new"] == {"id": 1}
        await run_sync(Database(owner_url), run(downgrade))  # type: ignore[arg-type]
        await connection.execute("INSERT INTO orders VALUES (1, 3)")
        await layer.publish("orders.1", "last")
        assert (await within(anext(subscription))).payload == "last"


def test_revision_is_written_as_sql(capsys: pytest.CaptureFixture[str]) -> None:
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "literal_binds": True})
    with Operations.context(context):
        upgrade()
        downgrade()
    written = capsys.readouterr().out
    assert "SELECT \"pgchannels\".publish_row_changes('public.orders'::pg_catalog.regclass, 'orders.{id}'" in written
    assert "ARRAY['with:colon']::pg_catalog.text[]" in written
    assert "SELECT \"pgchannels\".stop_row_changes('public.orders'::pg_catalog.regclass, 'live')" in written
