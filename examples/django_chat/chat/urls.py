"""The page."""

from pathlib import Path

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from chat.presence import SERVER

PAGE = Path(__file__).parents[2] / "chat_page" / "index.html"


def page(_: HttpRequest) -> HttpResponse:
    """The chat page, the same that FastAPI serves."""
    return HttpResponse(PAGE.read_bytes())


def server(_: HttpRequest) -> JsonResponse:
    """Which server this is, for the page where users join."""
    return JsonResponse({"server": SERVER})


urlpatterns = [path("", page), path("server", server)]
