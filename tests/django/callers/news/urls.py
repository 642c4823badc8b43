from django.http import HttpResponse
from django.urls import path

from news.sending import send, send_from_loop


def index(request):
    return HttpResponse("ready")


def sync_view(request, text):
    send(text)
    return HttpResponse("sent")


async def async_view(request, text):
    await send_from_loop(text)
    return HttpResponse("sent")


urlpatterns = [path("", index), path("sync/<str:text>/", sync_view), path("async/<str:text>/", async_view)]
