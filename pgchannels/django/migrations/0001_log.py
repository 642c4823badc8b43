"""Alembic's revision 0001."""

from django.db import migrations

from pgchannels.django.operations import UpgradeSchema


class Migration(migrations.Migration):
    """See `alembic/versions/0001_log.py`."""

    initial = True
    dependencies = ()
    operations = (UpgradeSchema("base", "0001"),)
