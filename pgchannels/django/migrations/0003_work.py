"""Alembic's revision 0003."""

from collections.abc import Sequence
from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation

from pgchannels.django.operations import UpgradeSchema


class Migration(migrations.Migration):
    """See `alembic/versions/0003_work.py`."""

    dependencies: ClassVar[Sequence[tuple[str, str]]] = (("pgchannels", "0002_durability"),)
    operations: ClassVar[Sequence[Operation]] = (
        UpgradeSchema("0002", "0003"),
        migrations.AddField("queuestatus", "in_progress", models.BigIntegerField()),
    )
