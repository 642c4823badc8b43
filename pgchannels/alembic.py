"""Operations for the revisions of an application: `import pgchannels.alembic` adds them to Alembic's `op`.

::

    import pgchannels.alembic
    from alembic import op

    def upgrade():
        op.publish_row_changes("orders", topic="orders.{customer_id}", without=["notes"])

    def downgrade():
        op.stop_row_changes("orders")
"""

from collections.abc import Sequence
from typing import Any

from alembic.operations import MigrateOperation, Operations

from pgchannels.database import row_changes
from pgchannels.names import DEFAULT_PREFIX, DEFAULT_SCHEMA


@Operations.register_operation("publish_row_changes")
class PublishRowChanges(MigrateOperation):
    """Publish the changes of a table's rows, as they commit; see `pgchannels.publish_row_change` in SQL."""

    def __init__(self, table: str, changes: row_changes.RowChanges) -> None:
        self.table: str = table
        self.changes: row_changes.RowChanges = changes

    @classmethod
    def publish_row_changes(
        cls,
        operations: Operations,
        table: str,
        *,
        topic: str,
        without: Sequence[str] = (),
        prefix: str = DEFAULT_PREFIX,
        name: str = row_changes.DEFAULT_TRIGGER,
        schema: str = DEFAULT_SCHEMA,
    ) -> Any:
        """Make the triggers. `table` is named as in SQL, and `{column}` in the topic stands for a value of the row."""
        changes = row_changes.RowChanges(topic=topic, without=without, prefix=prefix, name=name, schema=schema)
        return operations.invoke(cls(table, changes))

    def reverse(self) -> "StopRowChanges":
        """Return what undoes this."""
        return StopRowChanges(self.table, self.changes.name, self.changes.schema)


@Operations.register_operation("stop_row_changes")
class StopRowChanges(MigrateOperation):
    """Undo `PublishRowChanges`."""

    def __init__(self, table: str, name: str, schema: str) -> None:
        self.table: str = table
        self.name: str = name
        self.schema: str = schema

    @classmethod
    def stop_row_changes(
        cls,
        operations: Operations,
        table: str,
        *,
        name: str = row_changes.DEFAULT_TRIGGER,
        schema: str = DEFAULT_SCHEMA,
    ) -> Any:
        """Remove the triggers."""
        return operations.invoke(cls(table, name, schema))


@Operations.implementation_for(PublishRowChanges)
def _publish(operations: Operations, operation: PublishRowChanges) -> None:
    operations.execute(operation.changes.start(operation.table).replace(":", r"\:"))


@Operations.implementation_for(StopRowChanges)
def _stop(operations: Operations, operation: StopRowChanges) -> None:
    operations.execute(
        row_changes.stop(operation.table, name=operation.name, schema=operation.schema).replace(":", r"\:")
    )
