"""The layers of `CHANNEL_LAYERS` that are ours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.utils.module_loading import import_string

from pgchannels.django.layer import PostgresChannelLayer
from pgchannels.names import DEFAULT_SCHEMA

OUR_PACKAGE: Final = "pgchannels."


@dataclass(frozen=True, slots=True)
class ConfiguredLayer:
    """One entry of `CHANNEL_LAYERS`."""

    name: str
    backend: type[PostgresChannelLayer]
    config: Mapping[str, Any]

    @property
    def schema(self) -> str:
        """The schema of its tables."""
        return str(self.config.get("schema", DEFAULT_SCHEMA))

    @property
    def alias(self) -> str | None:
        """The alias of `DATABASES` that it uses; None where its database is given otherwise."""
        return self.config.get("database")


def configured_layers() -> Iterator[ConfiguredLayer]:
    """Those whose backend is ours, or inherits it; entries that make no sense are passed over, since a check tells."""
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    for name, entry in layers.items() if isinstance(layers, Mapping) else ():
        backend = backend_of(entry)
        config = entry.get("CONFIG", {}) if backend is not None else None
        if backend is not None and isinstance(config, Mapping):
            yield ConfiguredLayer(name, backend, config)


def backend_of(entry: object) -> type[PostgresChannelLayer] | None:
    """The class of an entry, if it is ours."""
    try:
        backend = import_string(entry["BACKEND"]) if isinstance(entry, Mapping) else None
    except (ImportError, KeyError, AttributeError, TypeError):
        return None
    return backend if isinstance(backend, type) and issubclass(backend, PostgresChannelLayer) else None


def schemas_of(alias: str) -> list[str]:
    """The schemas of the layers that use this alias of `DATABASES`."""
    return sorted({layer.schema for layer in configured_layers() if layer.alias == alias})


def main_layer() -> ConfiguredLayer | None:
    """The layer called `default`, or else the first one that is ours."""
    layers = {layer.name: layer for layer in configured_layers()}
    return layers.get("default") or next(iter(layers.values()), None)


def main_alias() -> str:
    """The alias of the database that the main layer uses; Django's own default where it names none."""
    layer = main_layer()
    return (layer and layer.alias) or DEFAULT_DB_ALIAS
