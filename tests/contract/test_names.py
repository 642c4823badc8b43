"""Names of channels and groups."""

import re
from typing import Any, cast

import pytest

from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

from .layers import AnyLayer, drain, said, texts

INVALID_NAMES: list[Any] = ["", "a" * 100, "with space", "a/b", "a:b", "a*", "größe", "漢", None, 1, b"bytes", ["list"]]
INVALID_CHANNELS: list[Any] = [*INVALID_NAMES, "!", "!own", "a!b!c", "a!b c", "a" * 50 + "!" + "b" * 50]
INVALID_GROUPS: list[Any] = [*INVALID_NAMES, "!", "a!", "a!b"]

NAMES = ["a", "0", "a.b-c_D9", "-", ".", "_", "SELECT", "a" * 99]

# The patterns of Channels' own layers know digits of all alphabets, and take a newline at the end; the specification
# does neither.
NAMES_THAT_ONLY_THE_ORACLE_TAKES = ["\u0663", "newline\n"]


async def test_invalid_channel_name_is_refused(channel_layer: AnyLayer) -> None:
    for name in INVALID_CHANNELS:
        await refuse_channel(channel_layer, name)


async def test_invalid_group_name_is_refused(channel_layer: AnyLayer) -> None:
    for name in INVALID_GROUPS:
        await refuse_group(channel_layer, name)


async def refuse_channel(layer: AnyLayer, name: object) -> None:
    """Every method that takes a channel refuses this one."""
    channel = cast(str, name)
    with pytest.raises(TypeError):
        await within(layer.send(channel, said("hello")))
    with pytest.raises(TypeError):
        await within(layer.receive(channel))
    with pytest.raises(TypeError):
        await within(layer.group_add("room", channel))
    with pytest.raises(TypeError):
        await within(layer.group_discard("room", channel))


async def refuse_group(layer: AnyLayer, name: object) -> None:
    """Every method that takes a group refuses this one."""
    group = cast(str, name)
    with pytest.raises(TypeError):
        await within(layer.group_add(group, "work_queue"))
    with pytest.raises(TypeError):
        await within(layer.group_discard(group, "work_queue"))
    with pytest.raises(TypeError):
        await within(layer.group_send(group, said("hello")))


async def test_refused_name_leaves_no_trace(channel_layer: AnyLayer) -> None:
    with pytest.raises(TypeError):
        await channel_layer.group_add("no group", "work_queue")
    with pytest.raises(TypeError):
        await channel_layer.send("no channel", said("hello"))
    assert await drain(channel_layer, "work_queue") == []


async def test_name_beyond_the_specification_is_refused(postgres_layer: PostgresChannelLayer) -> None:
    for name in NAMES_THAT_ONLY_THE_ORACLE_TAKES:
        await refuse_channel(postgres_layer, name)
        await refuse_group(postgres_layer, name)


@pytest.mark.parametrize("name", NAMES)
async def test_valid_name_works_for_a_channel_and_for_a_group(channel_layer: AnyLayer, name: str) -> None:
    own = await channel_layer.new_channel()
    await channel_layer.group_add(name, name)
    await channel_layer.group_add(name, own)
    await channel_layer.group_send(name, said("to the group"))
    assert texts(await drain(channel_layer, name)) == ["to the group"]
    assert texts(await drain(channel_layer, own)) == ["to the group"]


async def test_names_are_case_sensitive(channel_layer: AnyLayer) -> None:
    for name in ("room", "Room", "ROOM"):
        await channel_layer.group_add(name, name)
        await channel_layer.group_send(name, said(name))
    for name in ("room", "Room", "ROOM"):
        assert texts(await drain(channel_layer, name)) == [name]


async def test_new_channel_begins_with_its_prefix(channel_layer: AnyLayer) -> None:
    assert (await channel_layer.new_channel()).startswith("specific.")
    assert (await channel_layer.new_channel(prefix="chat")).startswith("chat.")


async def test_new_channels_have_different_valid_names(channel_layer: AnyLayer) -> None:
    names = [await channel_layer.new_channel() for _ in range(100)]
    assert len(set(names)) == 100
    for name in names:
        assert re.fullmatch(r"[a-zA-Z0-9\-_.]+![a-zA-Z0-9\-_.]+", name)
        assert len(name) < 100


async def test_new_channel_with_a_prefix_can_be_used(channel_layer: AnyLayer) -> None:
    channel = await channel_layer.new_channel(prefix="chat")
    await channel_layer.group_add("room", channel)
    await channel_layer.group_send("room", said("hello"))
    assert texts(await drain(channel_layer, channel)) == ["hello"]


@pytest.mark.parametrize("prefix", ["with space", "a!b", "größe", "a" * 99])
async def test_prefix_that_gives_no_valid_name_is_refused(postgres_layer: PostgresChannelLayer, prefix: str) -> None:
    # Ours alone: the oracle gives a name that it would then refuse to send to.
    with pytest.raises(TypeError):
        await postgres_layer.new_channel(prefix=prefix)


async def test_layer_has_the_extensions_for_groups_and_flush(channel_layer: AnyLayer) -> None:
    assert {"groups", "flush"} <= set(channel_layer.extensions)
