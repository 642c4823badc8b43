"""Alembic's revision 0002."""

from collections.abc import Sequence
from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation

from pgchannels.django.operations import UpgradeSchema


class Migration(migrations.Migration):
    """See `alembic/versions/0002_durability.py`."""

    dependencies: ClassVar[Sequence[tuple[str, str]]] = (("pgchannels", "0001_log"),)
    operations: ClassVar[Sequence[Operation]] = (UpgradeSchema("0001", "0002"),)
