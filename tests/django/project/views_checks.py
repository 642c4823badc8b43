"""What `manage.py test` runs in the project: tests of a view that sends, and nobody who closes the layer."""

from asgiref.sync import async_to_sync
from channels.layers import channel_layers, get_channel_layer
from channels.testing import WebsocketCommunicator
from django.test import TestCase, TransactionTestCase
from said import leave_much_behind, say_and_read

from pgchannels.django.testing import EmptyChannelLayers


class ViewInTestCase(EmptyChannelLayers, TestCase):
    """Each test in a transaction of Django's, which the messages are no part of."""

    def test_first_reads_what_it_said_alone(self) -> None:
        """Leaves more behind than it reads."""
        assert say_and_read(self.client, "first") == {"thumbnails": ["first"], "archive": ["first"]}
        leave_much_behind(self.client)

    def test_second_reads_what_it_said_alone(self) -> None:
        """Leaves more behind than it reads."""
        assert say_and_read(self.client, "second") == {"thumbnails": ["second"], "archive": ["second"]}
        leave_much_behind(self.client)


class ViewInTransactionTestCase(EmptyChannelLayers, TransactionTestCase):
    """Each test with tables that Django empties."""

    test_first_reads_what_it_said_alone = ViewInTestCase.test_first_reads_what_it_said_alone
    test_second_reads_what_it_said_alone = ViewInTestCase.test_second_reads_what_it_said_alone

    async def test_consumer_hears_the_view(self) -> None:
        """An asynchronous test that leaves its consumer connected."""
        from asgi import application

        browser = WebsocketCommunicator(application, "/chat/")
        await browser.connect()
        assert (await self.async_client.get("/say/hello/")).status_code == 200
        assert await browser.receive_json_from(timeout=30) == "hello"


class LayerOfTestConfig(EmptyChannelLayers, TestCase):
    """A layer made from TEST_CONFIG."""

    def setUp(self) -> None:
        """Put it in the place of that of CONFIG."""
        super().setUp()
        before = channel_layers.set("default", channel_layers.make_test_backend("default"))
        self.addCleanup(channel_layers.set, "default", before)

    def test_layer_of_test_config_is_apart_from_that_of_config(self) -> None:
        """A message to the one is not seen by the other."""
        self.client.get("/say/hello/")
        other = channel_layers.make_backend("default")
        other.sync.send("thumbnails", {"type": "chat.message", "text": "other"})
        assert async_to_sync(other.receive)("thumbnails")["text"] == "other"
        assert async_to_sync(get_channel_layer().receive)("thumbnails")["text"] == "hello"
