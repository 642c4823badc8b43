import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "news.settings")
pages = get_asgi_application()

from tests.support.consumers import ChatConsumer, SynchronousChatConsumer  # noqa: E402 (needs the apps)

sockets = URLRouter([path("async/", ChatConsumer.as_asgi()), path("sync/", SynchronousChatConsumer.as_asgi())])
application = ProtocolTypeRouter({"http": pages, "websocket": sockets})
