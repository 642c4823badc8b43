"""The Django app, which has migrations but no models."""

from django.apps import AppConfig


class PgChannelsConfig(AppConfig):
    """`INSTALLED_APPS += ["pgchannels.django"]`."""

    name = "pgchannels.django"
    label = "pgchannels"
    verbose_name: str = "pgchannels"
