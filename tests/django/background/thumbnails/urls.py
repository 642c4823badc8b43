from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.http import HttpResponse
from django.urls import path


def generate(request, first, last):
    layer = get_channel_layer()
    for number in range(first, last + 1):
        async_to_sync(layer.send)("thumbnails-generate", {"type": "generate", "id": number})
    return HttpResponse("sent")


async def delete(request, number):
    await get_channel_layer().send("thumbnails-delete", {"type": "delete", "id": number})
    return HttpResponse("sent")


urlpatterns = [
    path("generate/<int:first>/<int:last>/", generate),
    path("delete/<int:number>/", delete),
]
