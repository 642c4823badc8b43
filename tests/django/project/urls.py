"""Views that send; nobody ever closes the layer."""

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpRequest, HttpResponse
from django.urls import path


def say(request: HttpRequest, text: str) -> HttpResponse:
    """Send a text to the room, and to everybody who works on thumbnails."""
    layer = get_channel_layer()
    message = {"type": "chat.message", "text": text}
    async_to_sync(layer.group_add)("room", "archive")
    async_to_sync(layer.group_send)("room", message)
    async_to_sync(layer.send)("thumbnails", message)
    return HttpResponse("said")


urlpatterns = [path("say/<str:text>/", say)]
