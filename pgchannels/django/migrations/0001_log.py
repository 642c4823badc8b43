"""Alembic's revision 0001."""

from collections.abc import Sequence
from typing import ClassVar

from django.db import migrations
from django.db.migrations.operations.base import Operation

from pgchannels.django.operations import UpgradeSchema


class Migration(migrations.Migration):
    """See `alembic/versions/0001_log.py`."""

    initial: ClassVar[bool | None] = True
    dependencies: ClassVar[Sequence[tuple[str, str]]] = ()
    operations: ClassVar[Sequence[Operation]] = (UpgradeSchema("base", "0001"),)
