"""Which server carries what: the same in every process, evenly, and with the least that moves."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from pgchannels import ConfigurationError, MessageLayer, Position, Positions
from pgchannels.process.process import Process
from pgchannels.sending.outgoing import Outgoing
from pgchannels.servers.beginnings import Beginnings, positions_on
from pgchannels.servers.placement import Placement, rendezvous
from pgchannels.servers.senders import batches_by_server, in_order
from pgchannels.servers.servers import Servers
from pgchannels.servers.targets import targets_by_name

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_:/[]", min_size=1, max_size=30)
servers = st.lists(names, min_size=1, max_size=8, unique=True)
addresses = st.builds("topic:asgi:{}".format, st.text("abcxyz019.-_:/@", min_size=1, max_size=99))


def test_placement_never_changes() -> None:
    """Another hash would move the topics of everybody who updates."""
    placed = {name: rendezvous(["a", "b", "c"], name) for name in GOLDEN}
    assert placed == GOLDEN


GOLDEN = {
    "topic:asgi:room": "a",
    "topic:asgi:news": "a",
    "topic:asgi:orders.1": "a",
    "topic:asgi:orders.2": "c",
    "queue:asgi:jobs": "a",
    "queue:asgi:thumbnails": "c",
    "node:asgi:0123456789abcdef": "c",
    "node:asgi:fedcba9876543210": "c",
}


@given(servers, addresses, st.randoms())
def test_order_of_the_servers_does_not_matter(servers: list[str], address: str, random: Any) -> None:
    shuffled = random.sample(servers, len(servers))
    assert rendezvous(servers, address) == rendezvous(shuffled, address)


@given(servers, names, addresses)
def test_only_what_a_new_server_takes_moves(servers: list[str], added: str, address: str) -> None:
    before, after = rendezvous(servers, address), rendezvous([*servers, added], address)
    assert after in (before, added)


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_servers_carry_equal_shares(count: int) -> None:
    topics = 20_000
    shares = Counter(rendezvous([f"db{n}:5432/app" for n in range(count)], f"topic:asgi:{n}") for n in range(topics))
    expected = topics / count
    assert all(abs(share - expected) < 5 * expected**0.5 for share in shares.values()), shares


@given(st.lists(addresses, max_size=30), servers)
def test_batches_keep_the_order_for_each_server(sent: list[str], servers: list[str]) -> None:
    placement = Placement(servers)
    batches = batches_by_server(placement, [Outgoing(address, None, b"") for address in sent])
    assert all(list(batch) == sorted(batch) for batch in batches.values())
    ids = [list(batch) for batch in batches.values()]
    assert in_order(batches, ids) == list(range(len(sent)))


def test_pinned_topics_are_on_their_server() -> None:
    placement = Placement(["a", "b"], pinned={"orders.vip.*": "b", "orders.*": "a"})
    assert {placement.server_of(f"topic:asgi:orders.{n}") for n in range(20)} == {"a"}
    assert {placement.server_of(f"topic:asgi:orders.vip.{n}") for n in range(20)} == {"b"}
    assert {placement.server_of(f"queue:asgi:orders.{n}") for n in range(20)} == {"a", "b"}


def test_topics_are_received_from_where_others_place_them_too() -> None:
    before, after = Placement(["a", "b"], also=["a", "b", "c"]), Placement(["a", "b", "c"], also=["a", "b"])
    for address in (f"topic:asgi:{n}" for n in range(100)):
        places = {before.server_of(address), after.server_of(address)}
        assert set(before.servers_of(address)) == set(after.servers_of(address)) == places
    assert Placement(["a"]).servers_of("topic:asgi:room") == ("a",)
    assert set(before.servers_of("queue:asgi:jobs")) == {"a", "b", "c"}


def test_pin_that_changes_is_received_from_both_servers() -> None:
    placement = Placement(["a", "b"], pinned={"orders.*": "a"}, also_pinned={"orders.*": "b"})
    assert placement.servers_of("topic:asgi:orders.1") == ("a", "b")


def test_client_appends_the_positions_of_later_messages() -> None:
    since = Positions.parse("0-0@a,room@b=1-5,news@a=1-2,room=1-9@b,me@home=1-7@a")
    beginnings = Beginnings(since, first="a")
    assert str(beginnings.on("room", "b")) == "1-9@b"
    assert str(beginnings.on("news", "a")) == "1-2"
    assert str(beginnings.on("me@home", "a")) == "1-7@a"


URL = "postgresql://localhost/a"


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ([], {}, "database must be a list of URLs"),
        ({}, {}, "database must be a list of URLs"),
        ([URL, URL], {}, "localhost:5432/a twice"),
        ([5], {}, "postgresql://user:password@host"),
        ({"a": URL, "b": URL}, {}, "'a' and 'b' are the same"),
        ({"a,b": URL}, {}, "'a,b'"),
        ({5: URL}, {}, "named 5"),
        ({"a": URL}, {"pinned": {"orders.*": "b"}}, "pinned"),
        ({"a": URL}, {"pinned": ["orders.*"]}, "pinned"),
        ({"a": URL}, {"pinned": {5: "a"}}, "pinned"),
        ({"a": URL}, {"also_receive_from": {"a": "postgresql://localhost/b"}}, "also_receive_from"),
        ({"a": URL}, {"also_receive_from": URL}, "also_receive_from"),
        ({"a": URL}, {"listen_url": URL}, "listen_url leads to one database"),
        (URL, {"pinned": {"orders.*": "a"}}, "pinned"),
        (URL, {"also_receive_from": [URL]}, "also_receive_from"),
        (URL, {"also_pinned": {"orders.*": "a"}}, "also_pinned"),
        ({"a": URL}, {"also_pinned": {"orders.*": "b"}}, "also_pinned"),
    ],
)
def test_impossible_servers_are_refused_with_a_reason(arguments: Any, options: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        MessageLayer(arguments, **options)


def test_url_of_sqlalchemy_is_one_database_and_one_of_several() -> None:
    url = make_url(URL)
    assert isinstance(MessageLayer(url)._process, Process)
    assert isinstance(MessageLayer([url])._process, Servers)
    assert isinstance(MessageLayer((url,))._process, Servers)
    with pytest.raises(ConfigurationError, match="also_receive_from must be a list"):
        MessageLayer([url], also_receive_from=url)  # type: ignore[arg-type]


def test_server_without_a_name_is_called_by_its_first_host() -> None:
    urls = ["postgresql://user:secret@db1:5433,db2:5434/app", "postgresql:///app?host=/run/postgresql&port=5432"]
    assert list(targets_by_name("database", urls)) == ["db1:5433/app", "/run/postgresql:5432/app"]


servers_of_topics = st.dictionaries(
    names,
    st.dictionaries(
        st.text("az.-_:/@", min_size=1),
        st.builds(Position, st.integers(0, 1023), st.integers(0, 2**53 - 1)),
        min_size=1,
    ),
    min_size=1,
    max_size=4,
)


@given(servers_of_topics)
def test_positions_on_servers_come_back_from_their_text(positions: dict[str, dict[str, Position]]) -> None:
    read = Positions.parse(str(positions_on(positions, first="first")))
    beginnings = Beginnings(read, first="first")
    for server, topics in positions.items():
        for topic, position in topics.items():
            assert beginnings.on(topic, server) == position
            assert not beginnings.leave_out(topic, positions.keys())
    assert beginnings.on("none of them", "first") == Position(0, 0, "first")


def test_position_without_a_server_is_one_of_the_first() -> None:
    beginnings = Beginnings(Positions.parse("1-512,news=1-640"), first="a")
    assert (beginnings.on("room", "a"), beginnings.on("news", "a")) == (Position(1, 512), Position(1, 640))
    assert beginnings.on("room", "b") == Position(0, 0)
    assert beginnings.leave_out("room", ("b",))
    assert not beginnings.leave_out("room", ("b", "a"))
