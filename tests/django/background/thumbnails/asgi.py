import os

from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "thumbnails.settings")
pages = get_asgi_application()

from thumbnails import consumers  # noqa: E402 (needs the apps)

workers = {
    "thumbnails-generate": consumers.GenerateConsumer.as_asgi(),
    "thumbnails-delete": consumers.DeleteConsumer.as_asgi(),
}
application = ProtocolTypeRouter({"http": pages, "channel": ChannelNameRouter(workers)})
