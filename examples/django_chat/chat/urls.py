"""The page."""

from pathlib import Path

from django.http import HttpRequest, HttpResponse
from django.urls import path

PAGE = Path(__file__).parents[2] / "chat_page" / "index.html"


def page(_: HttpRequest) -> HttpResponse:
    """The chat page, the same that FastAPI serves."""
    return HttpResponse(PAGE.read_bytes())


urlpatterns = [path("", page)]
