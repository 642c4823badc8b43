"""For the tests of a project: each begins with empty channel layers, as it begins with an empty mail outbox."""

from typing import TYPE_CHECKING, Any

from channels.layers import channel_layers
from django.conf import settings
from django.db import connections
from django.utils.functional import classproperty

from pgchannels.django.configured_layers import ConfiguredLayer, configured_layers
from pgchannels.django.layer import PostgresChannelLayer
from pgchannels.errors import ConfigurationError

if TYPE_CHECKING:
    from unittest import TestCase as _Base
else:
    _Base = object


class EmptyChannelLayers(_Base):
    """A mixin for Django's `TestCase`, `TransactionTestCase` and Channels' `ChannelsLiveServerTestCase`.

    Tests may use the databases of the layers besides those of the test case, unless the class names its `databases`.
    """

    if not TYPE_CHECKING:  # for a type checker, it would contradict that of TestCase

        @classproperty
        def databases(cls) -> Any:  # noqa: N805  # as of a class method
            """Those of the test case, and those of the layers unless it may use none, or all."""
            named = getattr(super(), "databases", ())
            return {*named, *_aliases()} if named and named != "__all__" else named

    def setUp(self) -> None:
        """Empty the layers."""
        super().setUp()
        empty_channel_layers()


def empty_channel_layers() -> None:
    """Remove all messages and memberships of the layers.

    Call it in a thread without an event loop, where the test may use the databases of the layers. A layer whose
    database is not one of Django's is replaced by one made from its `TEST_CONFIG`.

    :raises ConfigurationError: there is no `TEST_CONFIG`, and tests must not empty the layer's own database.
    """
    for configured in configured_layers():
        if configured.named_alias is None:
            _use_test_config(configured)
        else:
            # Raises if the test may not use this database, which may then not be the test database.
            with connections[configured.named_alias].cursor():
                pass
    for name in dict.fromkeys(configured.name for configured in configured_layers()):
        layer = channel_layers[name]
        if isinstance(layer, PostgresChannelLayer):
            layer.empty()


def _aliases() -> set[str]:
    layers = (layer for key in ("CONFIG", "TEST_CONFIG") for layer in configured_layers(key=key))
    return {layer.named_alias for layer in layers if layer.named_alias is not None}


def _use_test_config(configured: ConfiguredLayer) -> None:
    if "TEST_CONFIG" not in settings.CHANNEL_LAYERS[configured.name]:
        raise ConfigurationError(
            f"CHANNEL_LAYERS[{configured.name!r}] does not use a database of Django's, which would be replaced by one"
            " for the tests: give the entry a TEST_CONFIG"
        )
    if not getattr(channel_layers.backends.get(configured.name), "is_for_tests", False):
        layer = channel_layers.make_test_backend(configured.name)
        layer.is_for_tests = True
        channel_layers.set(configured.name, layer)
