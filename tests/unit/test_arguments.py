"""Every argument of every public call: an odd value is accepted and usable, or refused by an error that names it."""

import argparse
import asyncio
import inspect
import itertools
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from numbers import Integral, Real
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgchannels import ConfigurationError, LayerClosed, MessageLayer, PgChannelsError, Position, Positions
from pgchannels.arguments import DAY, TEN_YEARS
from pgchannels.cli import add_database_commands, main
from pgchannels.cli.demo import add_demo_command
from pgchannels.django import PostgresChannelLayer
from pgchannels.options import Options
from pgchannels.serializers import registry
from tests.unit.odd_values import BROKEN, UNHASHABLE, subclass

URL: Final = "postgresql://localhost/db"
CHANNEL: Final = "specific.node!channel"


class Whole:
    """As other libraries make their integers."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value

    __int__ = __index__

    def __float__(self) -> float:
        return float(self._value)


Integral.register(Whole)

ODD: Final[list[Any]] = [
    *(math.inf, -math.inf, math.nan, 0, -1, 0.5, -0.0, 5e-324, 1e308, True, False, None, 10**400, -(10**5000), 2**63),
    *("", "60", "inf", "1024-0", "0-9007199254740992", "-1-5", "1-", "²-1", "1-512\n", "a" * 10_000, "\ud800", "a!b!c"),
    *(
        Decimal(5),
        Decimal("NaN"),
        Fraction(1, 3),
        1j,
        Whole(7),
        Whole(10**30),
        timedelta(1),
        b"1",
        [],
        {},
        (),
        {1},
        object(),
    ),
    *(Position(1024, 0), Position(-1, 5), Position(0, 2**53), Position(10**5000, 1)),
    *(subclass(kind, BROKEN, UNHASHABLE)() for kind in (int, float, dict)),
    *({"*": 0}, {"*": math.inf}, {5: 5}, {b"*": 5}, {"*": "5"}, [("*", 5)], ["", "key"], [5]),
]
odd_values: Final = (
    st.integers(0, len(ODD) - 1).map(ODD.__getitem__)
    | st.integers()
    | st.floats()
    | st.text()
    | st.decimals()
    | st.booleans()
    | st.binary()
)

# How each argument is named in its errors; None: others check it, as `tests/unit/test_url.py` and `test_codec.py` do.
NAMED: Final[dict[str, str | None]] = {
    **dict.fromkeys(inspect.signature(Options).parameters),
    **{name: name for name in inspect.signature(Options).parameters},
    **{name: name for name in ("since", "until", "limit", "when_full", "prefix", "wait", "attempts", "visible_after")},
    **{
        "topic": "topic",
        "topics": "topic",
        "channel": "channel",
        "queue": "channel",
        "group": "group",
        "groups": "group",
        "messages": "messages",
    },
    **{name: name for name in ("key", "headers", "exclude", "using", "connection")},
    # `tests/servers/test_placement.py`
    **dict.fromkeys(("databases", "urls", "pinned", "also_receive_from", "also_pinned")),
    **dict.fromkeys(("database", "url", "database_keys", "password", "payload", "message", "name", "serializer_class")),
}


def public_calls() -> "Iterator[tuple[str, inspect.Signature]]":
    """Everything that users call with arguments."""
    sync, channels = MessageLayer(URL).sync, PostgresChannelLayer(URL).sync
    for owner in (MessageLayer, PostgresChannelLayer, type(sync), type(channels), type(registry)):
        for name, call in inspect.getmembers(owner, inspect.isfunction):
            is_of_channels = call.__module__.startswith("channels.")
            if not is_of_channels and (not name.startswith("_") or (name == "__init__" and owner in PUBLIC)):
                yield f"{owner.__name__}.{name}", inspect.signature(call)


PUBLIC: Final = (MessageLayer, PostgresChannelLayer)


def test_every_argument_of_every_public_call_is_known_here() -> None:
    known = NAMED.keys() | {"self"}
    unknown = [(call, name) for call, signature in public_calls() for name in signature.parameters if name not in known]
    assert unknown == [], "say in NAMED how errors name them, and how they are called in CALLS"


def test_every_option_is_one_of_both_layers() -> None:
    options = inspect.signature(Options).parameters.keys() - {"upgrade_advice"}
    assert options - inspect.signature(PostgresChannelLayer).parameters.keys() == set()
    of_channels = {"on_disconnect", "on_reconnect", "on_gap"}
    assert options - inspect.signature(MessageLayer).parameters.keys() == of_channels


@pytest.mark.parametrize("kind", PUBLIC)
@pytest.mark.parametrize("name", inspect.signature(Options).parameters)
@given(value=odd_values)
@settings(max_examples=60)
@example(value=math.nan)
@example(value=math.inf)
@example(value=1e-300)
def test_odd_option_is_usable_or_refused_by_its_name(kind: Callable[..., Any], name: str, value: Any) -> None:
    if name not in inspect.signature(kind).parameters:
        return
    layer = asyncio.run(outcome_of(lambda odd: kind(URL, **{name: odd}), value))
    if isinstance(layer, Exception):
        require_named(layer, name)
    else:
        require_usable(layer._options)


def require_usable(options: Options) -> None:
    """What is kept is a number with which everything works, of no other type than Python's own."""
    for name, most in {"expiry": TEN_YEARS, "group_expiry": TEN_YEARS, "send_timeout": DAY, "heartbeat": DAY}.items():
        seconds = getattr(options, name)
        assert type(seconds) is float
        assert 0.001 <= seconds <= most or (name == "group_expiry" and seconds == 0)
    for capacity in (options.capacity, options.capacity_of("any"), *options.channel_capacity.values()):
        assert type(capacity) is int
        assert 1 <= capacity < 2**31


CALLS: Final[dict[str, Callable[[Any], Any]]] = {
    "subscribe since": lambda value: MessageLayer(URL).subscribe("room", since=value),
    "subscribe capacity": lambda value: MessageLayer(URL).subscribe("room", capacity=value),
    "subscribe when_full": lambda value: MessageLayer(URL).subscribe("room", when_full=value),
    "subscribe on_gap": lambda value: MessageLayer(URL).subscribe("room", on_gap=value),
    "subscribe topic": lambda value: MessageLayer(URL).subscribe("room", value),
    "history since": lambda value: MessageLayer(URL).history("room", since=value),
    "history until": lambda value: MessageLayer(URL).history("room", until=value),
    "history limit": lambda value: MessageLayer(URL).history("room", limit=value),
    "history topic": lambda value: MessageLayer(URL).history(value),
    "receive channel": lambda value: MessageLayer(URL).receive(value),
    "claim channel": lambda value: MessageLayer(URL).claim(value),
    "claim attempts": lambda value: MessageLayer(URL).claim("jobs", attempts=value),
    "claim visible_after": lambda value: MessageLayer(URL).claim("jobs", visible_after=value),
    "claim on_gap": lambda value: MessageLayer(URL).claim("jobs", on_gap=value),
    "receive on_gap": lambda value: MessageLayer(URL).receive(CHANNEL, on_gap=value),
}
SENDS: Final[dict[str, Callable[[Any], Any]]] = {
    "publish topic": lambda value: MessageLayer(URL).publish(value, 1),
    "publish_many topic": lambda value: MessageLayer(URL).publish_many([(value, 1)]),
    "publish_many messages": lambda value: MessageLayer(URL).publish_many(value),
    "send channel": lambda value: MessageLayer(URL).send(value, 1),
    "sync publish topic": lambda value: MessageLayer(URL).sync.publish(value, 1),
    "sync publish_many messages": lambda value: MessageLayer(URL).sync.publish_many(value),
    "sync send channel": lambda value: MessageLayer(URL).sync.send(value, 1),
    "channels send channel": lambda value: PostgresChannelLayer(URL).send(value, {}),
    "channels receive channel": lambda value: PostgresChannelLayer(URL).receive(value),
    "channels subscribe group": lambda value: PostgresChannelLayer(URL).subscribe(value),
    "channels group_send group": lambda value: PostgresChannelLayer(URL).group_send(value, {}),
    "channels group_add group": lambda value: PostgresChannelLayer(URL).group_add(value, CHANNEL),
    "channels group_add channel": lambda value: PostgresChannelLayer(URL).group_add("room", value),
    "channels group_discard group": lambda value: PostgresChannelLayer(URL).group_discard(value, CHANNEL),
    "channels sync group_add group": lambda value: PostgresChannelLayer(URL).sync.group_add(value, CHANNEL),
    "channels sync group_discard channel": lambda value: PostgresChannelLayer(URL).sync.group_discard("room", value),
    "channels sync group_send group": lambda value: PostgresChannelLayer(URL).sync.group_send(value, {}),
    "channels sync send channel": lambda value: PostgresChannelLayer(URL).sync.send(value, {}),
}


MESSAGES: Final[tuple[Any, ...]] = ([], {}, (), "", [("*", 5)])  # none, or of a topic that another test tries


async def outcome_of(call: Callable[[Any], Any], value: Any) -> Any:
    """What a call returns, or raises, on a layer that is not open."""
    try:
        result = call(value)
        return await result if isinstance(result, Awaitable) else result
    except Exception as error:
        return error


@pytest.mark.parametrize("name", CALLS)
@given(value=odd_values)
@settings(max_examples=60)
@example(value="1024-0")
@example(value=Position(0, 2**63))
def test_odd_argument_is_usable_or_refused_by_its_name(name: str, value: Any) -> None:
    outcome = asyncio.run(outcome_of(CALLS[name], value))
    if isinstance(outcome, Exception) and not isinstance(outcome, LayerClosed):
        require_named(outcome, name.split()[-1])


@pytest.mark.parametrize("name", SENDS)
def test_odd_argument_of_what_is_sent_is_refused_by_its_name(name: str) -> None:
    for value in ODD:
        is_text = type(value) is str and value.isascii() and value
        is_usable = is_text or ("messages" in name and type(value) in (list, dict, tuple, str) and value in MESSAGES)
        if not is_usable:
            require_named(asyncio.run(outcome_of(SENDS[name], value)), name.split()[-1])


UNUSABLE: Final[dict[str, list[Any]]] = {
    "key": [5, b"key", "", "a" * 201, "\ud800", "\0", 1.5, True, []],
    "expiry": [0, -1, math.nan, math.inf, 10**400, "5", True, 61, Whole(0)],
    "headers": [5, [], "text", {1: "a"}, {"a": None}, {"a": 1.5}, {"a": True}, {"a": 2**70}, {"a": []}, [("a", "b")]],
    "connection": [0, 5, "postgresql://", object(), [], MessageLayer(URL)],
    "exclude": [5, "", "a b", "a!b!c", "a" * 100],
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_unusable_extra_of_a_message_is_refused_by_its_name(name: str) -> None:
    layer, channels = MessageLayer(URL), PostgresChannelLayer(URL)
    calls: list[Callable[..., Any]] = [channels.group_send] if name == "exclude" else [layer.publish]
    others: dict[str, Callable[..., Any]] = {
        # What waits in a queue may outlast the log.
        "expiry": lambda _, payload, **extra: layer.send(CHANNEL, payload, **extra),
        "connection": layer.send,
    }
    calls += [others[name]] if name in others else []
    for call, value in itertools.product(calls, UNUSABLE[name]):
        outcome = await outcome_of(partial(send_with, call, name), value)
        require_named(outcome, {"exclude": "channel"}.get(name, name))


def send_with(call: Callable[..., Any], name: str, value: Any) -> Any:
    """Call with an extra argument of this name."""
    return call("room", {}, **{name: value})


def require_named(outcome: Any, name: str) -> None:
    """It is an error of pgchannels, which names the argument."""
    assert isinstance(outcome, PgChannelsError), repr(outcome)
    assert name in str(outcome)
    assert len(str(outcome)) < 400


@pytest.mark.parametrize(
    "value", ["1024-0", "0-9007199254740992", "1", "-", "1-1-1", "-1-1", "9" * 5000 + "-1", 5, None]
)
def test_text_of_a_position_that_no_message_can_have_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a position"):
        Position.parse(value)


@pytest.mark.parametrize("text", ["1-512@", "1-512@a b", "1-512@a@b", "1-512@ä", f"1-512@{'a' * 101}"])
def test_text_with_an_impossible_server_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="is not a position"):
        Position.parse(text)


def test_layer_with_one_database_refuses_a_position_that_names_a_server() -> None:
    with pytest.raises(ConfigurationError, match="names the server 'a'"):
        MessageLayer(URL).subscribe("room", since="0-0@a,room@a=1-512")


positions = st.builds(Position, st.integers(0, 1023), st.integers(0, 2**53 - 1))
topics = st.text("azAZ09-_.:/@", min_size=1, max_size=99)


@given(st.dictionaries(topics, positions, min_size=1))
def test_positions_of_topics_come_back_from_their_text(by_topic: dict[str, Position]) -> None:
    read = Positions.parse(str(Positions.by_topic(by_topic)))
    assert {topic: read.of(topic) for topic in by_topic} == by_topic
    assert read.is_possible
    assert read.of("ä new topic") == min(by_topic.values())


@given(positions)
def test_text_of_one_position_means_it_in_every_topic(position: Position) -> None:
    assert Positions.parse(str(position)) == Positions(position)
    assert str(Positions.by_topic({"room": position, "news": position})) == str(position)


@given(st.text("0-1,=r", max_size=12))
def test_any_text_is_positions_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert Positions.parse(text).is_possible


def test_every_number_of_the_command_line_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    add_demo_command(commands)
    add_database_commands(commands)
    for command, options in commands.choices.items():
        for option in [action.option_strings[-1] for action in options._actions if action.type is not None]:
            for value in ("0", "-1", "nan", "inf", "1e400", "9" * 5000, ""):
                try:
                    status = main([command, f"{option}={value}", *(["--url", URL] if command == "bench" else [])])
                except SystemExit as ended:
                    status = int(ended.code or 0)
                assert status
                assert option in capsys.readouterr().err


def test_numbers_of_other_libraries_are_taken() -> None:
    assert isinstance(Whole(7), Real)
    options = Options(expiry=Whole(7), capacity=Whole(10**30), channel_capacity={"*": Whole(5)})  # type: ignore[arg-type,dict-item]
    assert (options.expiry, options.capacity, options.capacity_of("jobs")) == (7.0, 2**31 - 1, 5)
