"""HTTP to Django, websockets to the consumer."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chat.settings")
http = get_asgi_application()

from chat.consumers import ChatConsumer  # noqa: E402 -- needs the settings

websocket = URLRouter([re_path(r"^ws/(?P<room>[A-Za-z0-9_-]{1,40})$", ChatConsumer.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": websocket})
