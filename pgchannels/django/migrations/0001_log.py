"""Alembic's revision 0001, and its views as models."""

from collections.abc import Sequence
from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

from pgchannels.django.operations import UpgradeSchema


class Migration(migrations.Migration):
    """See `alembic/versions/0001_log.py`."""

    initial: ClassVar[bool | None] = True
    dependencies: ClassVar[Sequence[tuple[str, str]]] = ()
    operations: ClassVar[Sequence[Operation]] = (
        UpgradeSchema("base", "0001"),
        migrations.CreateModel(
            name="NodeStatus",
            fields=[
                ("name", models.TextField(primary_key=True, serialize=False)),
                ("prefix", models.TextField(null=True)),
                ("host", models.TextField()),
                ("process_id", models.IntegerField()),
                ("process", models.TextField()),
                ("is_alive", models.BooleanField(verbose_name="alive")),
                ("leased_until", models.DateTimeField()),
                ("groups", models.BigIntegerField()),
                ("queues", models.BigIntegerField()),
                ("full_channels", models.BigIntegerField()),
            ],
            options={
                "managed": False,
                "db_table": '"pgchannels"."node_status"',
                "default_permissions": ("view",),
                "ordering": ["prefix", "name"],
                "verbose_name": "node",
            },
        ),
        migrations.CreateModel(
            name="GroupStatus",
            fields=[
                ("address", models.TextField(primary_key=True, serialize=False)),
                ("prefix", models.TextField()),
                ("name", models.TextField()),
                ("nodes", models.BigIntegerField()),
                ("queues", models.BigIntegerField()),
                ("last_message_at", models.DateTimeField(null=True)),
            ],
            options={
                "managed": False,
                "db_table": '"pgchannels"."group_status"',
                "default_permissions": ("view",),
                "ordering": ["prefix", "name"],
                "verbose_name": "group",
            },
        ),
        migrations.CreateModel(
            name="QueueStatus",
            fields=[
                ("address", models.TextField(primary_key=True, serialize=False)),
                ("prefix", models.TextField()),
                ("name", models.TextField()),
                ("waiting", models.BigIntegerField()),
                ("waiting_since", models.DateTimeField(null=True)),
                ("nodes", models.BigIntegerField(verbose_name="receiving nodes")),
                ("groups", models.BigIntegerField()),
            ],
            options={
                "managed": False,
                "db_table": '"pgchannels"."queue_status"',
                "default_permissions": ("view",),
                "ordering": ["-waiting", "prefix", "name"],
                "verbose_name": "work queue",
            },
        ),
    )
