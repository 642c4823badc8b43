"""Django Channels layer and Django app.

`CHANNEL_LAYERS["default"] = {"BACKEND": "pgchannels.django.PostgresChannelLayer", "CONFIG": {"database": "default"}}`;
with `"pgchannels.django"` in `INSTALLED_APPS`, `manage.py migrate` creates the tables.
"""

from pgchannels.django.checks import register_checks
from pgchannels.django.layer import PostgresChannelLayer

__all__ = ["PostgresChannelLayer"]

# On import, not when the app is ready: a project that forgot the app gets the warning, too.
register_checks()
