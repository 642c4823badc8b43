"""Which command creates the tables of a layer."""

from typing import Final

from channels.layers import channel_layers
from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, router

from pgchannels.django.configured_layers import ConfiguredLayer, configured_layers, main_layer
from pgchannels.django.layer import PostgresChannelLayer
from pgchannels.names import DEFAULT_SCHEMA

APP: Final = "pgchannels.django"
APP_LABEL: Final = "pgchannels"


def upgrade_command(layer: ConfiguredLayer) -> str:
    """The command that creates them in any case."""
    schema = "" if layer.schema == DEFAULT_SCHEMA else f" --schema {layer.schema}"
    if not apps.is_installed(APP):
        return f"pgchannels upgrade --url …{schema}"
    if layer.alias is not None:
        return f"manage.py pgchannels upgrade{_database_option(layer.alias)}{schema}"
    main = main_layer()
    chosen = "" if main is not None and main.name == layer.name else f" --layer {layer.name}"
    return f"manage.py pgchannels upgrade{chosen}"


def migrate_command(layer: ConfiguredLayer) -> str | None:
    """Django's command, if it reaches the database of the layer."""
    if layer.alias is None or not apps.is_installed(APP) or not router.allow_migrate(layer.alias, APP_LABEL):
        return None
    return f"manage.py migrate{_database_option(layer.alias)}"


def advice_for(layer: PostgresChannelLayer | None) -> str:
    """What an error advises when it finds no tables, or old ones."""
    names = {name for name, made in list(channel_layers.backends.items()) if made is layer}
    configured = [entry for entry in configured_layers() if entry.name in names]  # one for each server
    return ", and ".join(dict.fromkeys(map(_advice, configured))) or "run `pgchannels upgrade --url …` for it"


def _advice(layer: ConfiguredLayer) -> str:
    migrate, upgrade = migrate_command(layer), upgrade_command(layer)
    if migrate is not None:
        return f"run `{migrate}`, or, where it finds nothing to do, `{upgrade}`"
    if not apps.is_installed(APP):
        return f"add {APP!r} to INSTALLED_APPS for its commands, or run `{upgrade}`"
    return f"run `{upgrade}`: `manage.py migrate` does not reach this database"


def _database_option(alias: str) -> str:
    return "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
