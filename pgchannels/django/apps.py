"""The Django app."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class PgChannelsConfig(AppConfig):
    """`INSTALLED_APPS += ["pgchannels.django"]`."""

    name = "pgchannels.django"
    label = "pgchannels"
    verbose_name: str = "pgchannels"

    def ready(self) -> None:
        """Point the models of the admin pages to the schema of the main layer."""
        from pgchannels.django.configured_layers import main_layer
        from pgchannels.django.models import use_schema  # models cannot be imported earlier

        if (layer := main_layer()) is not None:
            use_schema(layer.schema)

        from pgchannels.django.operations import upgrade_without_migrations

        post_migrate.connect(upgrade_without_migrations, sender=self)
