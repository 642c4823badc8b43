"""Claims whose answer, or whose receiver, is gone: nothing is lost without being told, and nothing comes twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

import pytest

from pgchannels import DatabaseUnavailable, Gap, GapReason, LayerClosed, MessageLayer, MessagesLost
from pgchannels.receiving.taking import Terms
from tests.support.log import rotate_everything_away
from tests.support.proxy import Proxy
from tests.support.roads import Connection, node_of
from tests.support.waiting import LIMIT_SECONDS, until, within

QUEUE: Final = "queue:asgi:jobs"
NO_HEARTBEAT: Final = 3600  # seconds: nothing is mended by chance
REFUSE: Final = f"ALTER TABLE pgchannels.message ADD CONSTRAINT refused CHECK (address <> '{QUEUE}') NOT VALID"
TAKE_AGAIN: Final = "ALTER TABLE pgchannels.message DROP CONSTRAINT refused"


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[MessageLayer]:
    """A layer behind the proxy, whose heart does not beat."""
    async with MessageLayer(proxy.url, heartbeat=NO_HEARTBEAT, send_timeout=1) as layer:
        yield layer
        proxy.restore()


async def claim_for_nobody(layer: MessageLayer, behind: MessageLayer, proxy: Proxy, payloads: Sequence[str]) -> None:
    """Let a layer behind a proxy claim messages whose receivers have gone by the time that the answer comes."""
    for payload in payloads:
        await layer.send("jobs", payload)
    proxy.freeze_at(payloads[0].encode())
    receiving = [asyncio.create_task(behind.receive("jobs")) for _ in payloads]
    await within(proxy.holding(payloads[0].encode()))
    for task in receiving:
        task.cancel()
    await asyncio.wait(receiving)
    proxy.restore()
    await until(lambda: asyncio.sleep(0, claimed_by(behind) == len(payloads)))


def claimed_by(layer: MessageLayer) -> int:
    """How many messages of the queue lie in a layer's memory."""
    return len(node_of(layer).receiver.queues._claimed.get(Terms(QUEUE), ()))


async def test_queue_is_hosted_before_it_is_claimed_from(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    proxy.freeze_at(node_of(behind).identity.id.bytes)  # in the call that hosts the queue
    receiving = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(node_of(behind).identity.id.bytes))
    await layer.send("jobs", "sent before the queue is hosted")
    proxy.restore()
    assert await within(receiving) == "sent before the queue is hosted"


async def test_claim_under_way_when_its_layer_closes_goes_back_to_the_queue(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    keeper = node_of(behind)._keeper
    await layer.send("jobs", "claimed")
    proxy.freeze_at(b"claimed")
    receiving = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(b"claimed"))
    receiving.cancel()
    closing = asyncio.create_task(behind.close())
    await asyncio.wait([receiving])
    proxy.restore()
    await within(closing)
    assert keeper is not None
    assert keeper.exception() is None  # the claim was not made once more beside the one under way
    assert await within(layer.receive("jobs")) == "claimed"
    await layer.send("jobs", "the next one")
    assert await within(layer.receive("jobs")) == "the next one"


async def test_claim_that_the_log_has_forgotten_takes_nothing_else_and_is_told_as_a_gap(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    gaps: list[Gap] = []
    await layer.send("jobs", "taken for good")
    proxy.freeze_at(b"taken for good")
    receiving = asyncio.create_task(behind.receive("jobs", on_gap=gaps.append))
    await within(proxy.holding(b"taken for good"))
    await connection.execute("UPDATE pgchannels.log SET retention = '60 s'")
    await rotate_everything_away(connection)
    let_retention_pass(behind)
    await layer.send("jobs", "in its place")
    proxy.cut()
    assert await within(receiving) == "in its place"
    assert gaps == [Gap(GapReason.EXPIRED, None)]


def let_retention_pass(layer: MessageLayer) -> None:
    """Make a layer believe that its claim was made so long ago that the log may have forgotten it."""
    node = node_of(layer)
    claim = node.receiver.queues._taker.unresolved[Terms(QUEUE)]
    age_seconds = node._connections.database_time() + node.sender.retention_seconds - claim.remembered_until
    assert 0 <= age_seconds < LIMIT_SECONDS
    node.receiver.queues._taker.unresolved[Terms(QUEUE)] = replace(claim, remembered_until=0.0)


async def test_claim_that_is_repeated_late_brings_what_the_log_still_remembers(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    await layer.send("jobs", "remembered")
    proxy.freeze_at(b"remembered")
    receiving = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(b"remembered"))
    let_retention_pass(behind)
    proxy.cut()
    assert await within(receiving) == "remembered"


async def test_what_cannot_be_given_back_stays_for_the_next_receiver(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    await claim_for_nobody(layer, behind, proxy, ["one", "two"])
    await connection.execute(REFUSE)
    await within(node_of(behind).receiver.queues.give_back())
    assert [await within(behind.receive("jobs")) for _ in range(2)] == ["one", "two"]
    assert node_of(behind).losses.gaps == 0


async def test_what_cannot_be_given_back_is_given_back_at_a_later_heartbeat(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    await claim_for_nobody(layer, behind, proxy, ["one", "two"])
    await connection.execute(REFUSE)
    await within(node_of(behind).receiver.queues.give_back())
    await connection.execute(TAKE_AGAIN)
    await within(node_of(behind).receiver.queues.give_back())
    assert claimed_by(behind) == 0
    assert [await within(layer.receive("jobs")) for _ in range(2)] == ["one", "two"]


async def test_what_may_have_been_given_back_is_told_as_a_gap_and_comes_once(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    await claim_for_nobody(layer, behind, proxy, ["one"])
    proxy.freeze("to_client")
    await within(node_of(behind).receiver.queues.give_back())
    proxy.restore()
    with pytest.raises(MessagesLost) as lost:
        await within(behind.receive("jobs"))
    assert lost.value.gap == Gap(GapReason.EXPIRED, None)
    await layer.send("jobs", "the next one")
    assert [await within(behind.receive("jobs")) for _ in range(2)] == ["one", "the next one"]


async def test_closing_waits_for_what_is_being_given_back(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    await claim_for_nobody(layer, behind, proxy, ["one"])
    node = node_of(behind)
    proxy.freeze_at(b"one")
    node._tasks.start(node.receiver.queues.give_back(), name="heartbeat")
    await within(proxy.holding(b"one"))
    closing = asyncio.create_task(behind.close())
    for _ in range(100):  # turns of the loop, in which a closing that does not wait ends the heartbeat
        await asyncio.sleep(0)
    proxy.restore()
    await within(closing)
    assert node.losses.gaps == 0
    assert await within(layer.receive("jobs")) == "one"


async def test_what_a_closing_layer_cannot_give_back_is_counted_and_logged(
    layer: MessageLayer,
    behind: MessageLayer,
    proxy: Proxy,
    connection: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await claim_for_nobody(layer, behind, proxy, ["one", "two"])
    losses = node_of(behind).losses
    await connection.execute(REFUSE)
    await within(behind.close())
    assert (losses.messages, losses.gaps) == (2, 1)
    assert f"{QUEUE}: the layer closed with 2 claimed messages that it could not give back: 2 are lost" in caplog.text
    assert "Failing row" not in caplog.text  # which holds the payload


async def test_claim_that_a_closing_layer_gets_no_answer_to_is_counted_and_logged(
    layer: MessageLayer,
    behind: MessageLayer,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pgchannels.process.node._CLOSE_TIMEOUT_SECONDS", 0.5)
    losses = node_of(behind).losses
    await layer.send("jobs", "claimed")
    proxy.freeze_at(b"claimed")
    receiving = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(b"claimed"))
    proxy.freeze()
    await within(behind.close())
    with pytest.raises(LayerClosed):
        await receiving
    assert losses.gaps == 1
    assert f"{QUEUE}: the layer closes without an answer to its last claim: up to 1 messages may be lost" in caplog.text


async def test_worker_waits_for_the_database_for_as_long_as_it_takes(
    layer: MessageLayer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_of(layer).receiver.hosting, "_timeout_seconds", 0.01)
    async with connection.transaction():
        await connection.execute("SELECT FROM pgchannels.stripe FOR UPDATE")  # nobody can begin to receive
        working = asyncio.create_task(layer.receive("jobs"))
        with pytest.raises(DatabaseUnavailable, match="could not subscribe"):
            async with layer.subscribe("room"):
                pass
        assert not working.done()
    await layer.send("jobs", 1)
    assert await within(working) == 1
