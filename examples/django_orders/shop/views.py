"""A shop whose orders and notifications are one transaction: both exist, or neither."""

from pathlib import Path

from channels.layers import get_channel_layer
from django.db import IntegrityError, transaction
from django.db.models import F
from django.forms import modelform_factory
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_POST

from pgchannels.django.events import event_source
from shop.models import Item, Order

EXAMPLES = Path(__file__).parents[2]
RECONNECT_SECONDS = 1

OrderForm = modelform_factory(Order, fields=["customer", "item"])


@require_POST
def place_order(request: HttpRequest) -> JsonResponse:
    """Store an order and publish its notification, or refuse both."""
    form = OrderForm(request.GET)
    if not form.is_valid():
        return JsonResponse({"detail": "an order needs a customer and an item of the shop"}, status=422)
    try:
        with transaction.atomic():
            order = store(form)
    except IntegrityError:
        return JsonResponse({"detail": f"there is no {form.cleaned_data['item'].name} left"}, status=409)
    return JsonResponse({"number": order.pk}, status=201)


def store(form: OrderForm) -> Order:
    """Everything that belongs to an order; the block around it commits afterwards, or rolls all of it back."""
    order = form.save()
    notification = {"type": "order.placed", "number": order.pk, "customer": order.customer, "item": order.item_id}
    get_channel_layer().sync.group_send("orders", notification, using="default")
    # Last, so that the refusal of a sold-out item comes when the notification is already published.
    Item.objects.filter(pk=order.item_id).update(left_in_stock=F("left_in_stock") - 1)
    return order


async def events(request: HttpRequest) -> HttpResponseBase:
    """The notifications, for the page."""
    return await event_source(request, "orders", since=request.GET.get("since"), retry=RECONNECT_SECONDS)


def items(_: HttpRequest) -> JsonResponse:
    """What is in stock."""
    found = Item.objects.order_by("-name")
    return JsonResponse([{"name": item.name, "left": item.left_in_stock} for item in found], safe=False)


def page(_: HttpRequest) -> HttpResponse:
    """The page, the same that FastAPI serves."""
    return HttpResponse((EXAMPLES / "orders_page" / "index.html").read_bytes())


def script(_: HttpRequest) -> HttpResponse:
    """The client of a neighbouring example."""
    return HttpResponse((EXAMPLES / "browser_client" / "follow.js").read_bytes(), content_type="text/javascript")
