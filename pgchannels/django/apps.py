"""The Django app."""

from django.apps import AppConfig


class PgChannelsConfig(AppConfig):
    """`INSTALLED_APPS += ["pgchannels.django"]`."""

    name = "pgchannels.django"
    label = "pgchannels"
    verbose_name: str = "pgchannels"
