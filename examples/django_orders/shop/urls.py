"""The addresses of the shop."""

from django.urls import path

from shop import views

urlpatterns = [
    path("", views.page),
    path("follow.js", views.script),
    path("items", views.items),
    path("orders", views.place_order),
    path("orders/events", views.events),
]
