"""What `manage.py test` runs in the project: a browser's view of a server process, which shares the test database."""

from urllib.request import urlopen

from channels.testing import ChannelsLiveServerTestCase
from websockets.sync.client import connect

from pgchannels.django.testing import EmptyChannelLayers


class Chat(EmptyChannelLayers, ChannelsLiveServerTestCase):
    """A chat between processes."""

    serve_static = False

    def test_browser_hears_what_a_view_of_the_server_says(self) -> None:
        """Through the server's layer."""
        with connect(f"{self.live_server_ws_url}/chat/") as browser:
            with urlopen(f"{self.live_server_url}/say/hello/", timeout=30) as answer:
                assert answer.status == 200
            assert browser.recv(timeout=30) == '"hello"'

    def test_browser_hears_what_the_test_sends(self) -> None:
        """Through the layer of the test's own process."""
        with connect(f"{self.live_server_ws_url}/chat/") as browser:
            self.client.get("/say/hello/")
            assert browser.recv(timeout=30) == '"hello"'


class ChatOfAnotherServer(Chat):
    """The same with a server of its own, while the last one has just been terminated."""
