"""What `manage.py test` runs in the project whose layer has two servers: tests that name no databases, or some."""

import asyncio

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from pgchannels.django.testing import EmptyChannelLayers

LIMIT_SECONDS = 30
QUEUES = [f"queue.{number}" for number in range(8)]  # on both servers


class InTestCase(EmptyChannelLayers, TestCase):
    """May use the databases of the layer."""

    def test_first_reads_what_it_sent_alone(self) -> None:
        """Leaves a message in each queue."""
        assert self.databases == {"default", "two"}
        for queue in QUEUES * 2:
            get_channel_layer().sync.send(queue, {"type": "job", "test": self.id()})
        assert async_to_sync(_received)() == [self.id()] * len(QUEUES)

    test_second_reads_what_it_sent_alone = test_first_reads_what_it_sent_alone


class InTransactionTestCase(EmptyChannelLayers, TransactionTestCase):
    """May use them, too."""

    test_first_reads_what_it_sent_alone = InTestCase.test_first_reads_what_it_sent_alone


class ThatNamesAll(TestCase):
    """What a project derives its tests from."""

    databases = "__all__"


class InAll(EmptyChannelLayers, ThatNamesAll):
    """May use all."""

    test_first_reads_what_it_sent_alone = InTestCase.test_first_reads_what_it_sent_alone


class WithoutDatabases(SimpleTestCase):
    """A test case that must not use a database."""

    def test_databases_are_none_with_the_mixin(self) -> None:
        """It stays without."""
        assert not type("Simple", (EmptyChannelLayers, SimpleTestCase), {}).databases


async def _received() -> list[str]:
    layer = get_channel_layer()
    return [(await asyncio.wait_for(layer.receive(queue), LIMIT_SECONDS))["test"] for queue in QUEUES]
