"""The attributes that the specification asks for."""

from channels import exceptions

from pgchannels.django import PostgresChannelLayer

URL = "postgresql://localhost/db"


def test_layer_names_the_errors_that_it_raises() -> None:
    layer = PostgresChannelLayer(url=URL)
    assert (layer.ChannelFull, layer.MessageTooLarge) == (exceptions.ChannelFull, exceptions.MessageTooLarge)


def test_layer_tells_its_extensions_and_expiries() -> None:
    assert PostgresChannelLayer(url=URL).extensions == ["groups", "flush"]
    layer = PostgresChannelLayer(url=URL, expiry=30, group_expiry=3600, capacity=5)
    assert (layer.expiry, layer.group_expiry, layer.capacity) == (30, 3600, 5)
