"""Django Channels layer and Django app.

`CHANNEL_LAYERS["default"] = {"BACKEND": "pgchannels.django.PostgresChannelLayer", "CONFIG": {"database": "default"}}`;
with `"pgchannels.django"` in `INSTALLED_APPS`, `manage.py migrate` creates the tables.
"""

from pgchannels.django.layer import PostgresChannelLayer

__all__ = ["PostgresChannelLayer"]
