"""Each recipient gets what comes after the id from which on it receives, once and in order."""

import pytest

from pgchannels import Gap, GapReason
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.router import Router

ROOM, NEWS = "topic:asgi:room", "topic:asgi:news"
EXPIRED = Gap(GapReason.EXPIRED, None)


class _Recorder:
    """Keeps the ids that it gets, and the gaps at their places."""

    def __init__(self) -> None:
        self.got: list[int | Gap] = []

    def put(self, arrival: Arrival) -> None:
        self.got.append(arrival.id)

    def lose(self, gap: Gap) -> None:
        self.got.append(gap)


def route(router: Router, *ids: int, address: str = ROOM) -> None:
    for message_id in ids:
        router.route(Arrival(message_id, 0, address, None, b""))


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def recorder() -> _Recorder:
    return _Recorder()


def test_recipient_gets_what_comes_after_its_beginning_whatever_others_still_get(
    router: Router, recorder: _Recorder
) -> None:
    early = _Recorder()
    router.add(ROOM, "early", early, after=0)
    router.add(ROOM, "late", recorder, after=2)
    route(router, 1, 2, 3, 3, 2)
    assert (early.got, recorder.got) == ([1, 2, 3], [3])


def test_recipient_that_is_added_again_goes_on_as_it_does(router: Router, recorder: _Recorder) -> None:
    router.add(ROOM, "key", recorder, after=0)
    router.add(ROOM, "key", recorder, after=2)
    route(router, 1, 2)
    router.add(ROOM, "key", recorder, after=4)
    router.reserve(ROOM, "key")
    route(router, 3, 4, 5)
    assert recorder.got == [1, 2, 3, 4, 5]


def test_recipient_that_has_not_begun_keeps_its_beginning_when_its_address_is_reserved_again(
    router: Router, recorder: _Recorder
) -> None:
    router.add(ROOM, "key", recorder, after=2)
    router.reserve(ROOM, "key")
    router.release(ROOM, "key")
    route(router, 1, 2, 3)
    assert recorder.got == [3]
    assert router.take_unused() == []


def test_another_log_begins_anew_for_everybody(router: Router, recorder: _Recorder) -> None:
    late = _Recorder()
    router.add(ROOM, "early", recorder, after=0)
    router.host(ROOM, 7, is_marked=False)
    route(router, 9)
    router.add(ROOM, "late", late, after=20)
    router.note_sent({ROOM: 20})
    router.begin_anew(4, last_id=8)
    assert (router.read_after(ROOM), router.hosted_at(ROOM), router.positions()) == (4, 4, {ROOM: 4})
    route(router, 4, 5, 6)
    assert (recorder.got, late.got) == ([9, 5, 6], [5, 6])


def test_what_came_of_another_log_before_it_was_noticed_comes_once(router: Router, recorder: _Recorder) -> None:
    late = _Recorder()
    router.add(ROOM, "key", recorder, after=0)
    router.host(ROOM, 0, is_marked=False)
    route(router, 9)
    router.add(ROOM, "late", late, after=10)
    router.begin_anew(4, last_id=20)
    route(router, 5, 9, 10, 11)
    assert (recorder.got, late.got) == ([9, 10, 11], [11])


async def test_what_was_sent_into_another_log_is_not_waited_for(router: Router, recorder: _Recorder) -> None:
    router.add(ROOM, "key", recorder, after=0)
    router.host(ROOM, 0, is_marked=False)
    router.note_sent({ROOM: 20})
    router.begin_anew(4, last_id=8)
    await router.heard_own(ROOM)
    assert router._routes[ROOM].last_sent == 0


async def test_what_may_not_be_told_to_this_node_is_not_waited_for(router: Router, recorder: _Recorder) -> None:
    router.add(ROOM, "key", recorder, after=0)
    router.note_sent({ROOM: 20})
    router.host(ROOM, 30, is_marked=False)
    router.note_sent({ROOM: 30})
    await router.heard_own(ROOM)
    assert router._routes[ROOM].last_sent == 0


def test_gap_is_told_once_to_those_who_lost_something_by_it(router: Router) -> None:
    lost, begun, beginning, both = _Recorder(), _Recorder(), _Recorder(), _Recorder()
    router.add(ROOM, "lost", lost, after=0)
    router.add(ROOM, "beginning", beginning, after=10)
    router.add(NEWS, "begun", begun, after=0)
    for address in (ROOM, NEWS):
        router.add(address, "both", both, after=0)
    route(router, 5)
    route(router, 10, address=NEWS)
    router.lose_until(EXPIRED, {ROOM: 10, NEWS: 10})
    assert (lost.got, begun.got, beginning.got) == ([5, EXPIRED], [10], [])
    assert both.got == [5, 10, EXPIRED]
