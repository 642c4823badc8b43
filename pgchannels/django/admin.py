"""Pages of Django's admin that show nodes, groups and work queues, and change nothing."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from django.contrib import admin, messages
from django.db import DatabaseError, connections, models
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from pgchannels.django.configured_layers import configured_layers, main_layer
from pgchannels.django.models import GroupStatus, NodeStatus, QueueStatus
from pgchannels.django.revision import installed_revision

if TYPE_CHECKING:
    _ModelAdmin: TypeAlias = admin.ModelAdmin[models.Model]
else:
    _ModelAdmin = admin.ModelAdmin


class StatusAdmin(_ModelAdmin):
    """A list of what one view of the schema shows, or a sentence that says why it is empty."""

    explanation = ""
    actions = None
    list_display_links = None
    list_per_page = 50
    search_fields: ClassVar[Any] = ["name", "prefix"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        """No: these pages are read-only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """No: these pages are read-only."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """No: these pages are read-only."""
        return False

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[models.Model]:
        """The rows in the database of the main layer; none where Django cannot read them."""
        alias = _readable_alias()[0]
        return super().get_queryset(request).using(alias) if alias else self.model._default_manager.none()

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The page."""
        alias, trouble = _readable_alias()
        if trouble:
            messages.warning(request, trouble)
        layer = main_layer()
        now = timezone.localtime() if timezone.is_aware(timezone.now()) else timezone.now()
        of_layer = f" of the layer “{layer.name}”" if layer and alias else ""
        title = f"{self.opts.verbose_name_plural}{of_layer} at {now:%H:%M:%S}"
        context = {"title": title[0].upper() + title[1:], "explanation": self.explanation, "elsewhere": _elsewhere()}
        return super().changelist_view(request, context | (extra_context or {}))


@admin.register(NodeStatus)
class NodeStatusAdmin(StatusAdmin):
    """The nodes."""

    explanation = (
        "A node is a running layer in one event loop of one process. It renews its lease with every heartbeat;"
        " one whose lease has ended is gone, and is removed by the others."
    )
    list_display = (
        *("name", "prefix", "host", "process_id", "process"),
        *("is_alive", "lease", "groups", "queues", "full_channels"),
    )

    @admin.display(description="lease ends", ordering="leased_until")
    def lease(self, node: NodeStatus) -> str:
        """The time until it ends."""
        return _distance(node.leased_until)


@admin.register(GroupStatus)
class GroupStatusAdmin(StatusAdmin):
    """The groups."""

    explanation = (
        "A group is what FastAPI's side calls a topic. A message to it goes to every node that hosts a member, and is"
        " copied into every work queue that is one."
    )
    list_display = ("name", "prefix", "nodes", "queues", "last_message")

    @admin.display(description="last message", ordering="last_message_at")
    def last_message(self, group: GroupStatus) -> str | None:
        """How long ago it was sent, if the log still has one."""
        return _distance(group.last_message_at) if group.last_message_at else None


@admin.register(QueueStatus)
class QueueStatusAdmin(StatusAdmin):
    """The work queues."""

    explanation = (
        "A work queue is a channel without “!”: each of its messages goes to one of all who receive from it."
        " What nobody receives in time expires."
    )
    list_display = ("name", "prefix", "waiting", "oldest", "in_progress", "nodes", "groups")

    @admin.display(description="oldest message", ordering="waiting_since")
    def oldest(self, queue: QueueStatus) -> str | None:
        """How long the first message has waited."""
        return _distance(queue.waiting_since) if queue.waiting_since else None


def _readable_alias() -> tuple[str | None, str | None]:
    """The alias through which Django reads the tables of the main layer, or why it cannot."""
    layer = main_layer()
    if layer is None:
        return None, "No entry of CHANNEL_LAYERS uses pgchannels: there is nothing to show."
    if layer.alias is None:
        return None, (
            f"The layer “{layer.name}” names its database in CHANNEL_LAYERS itself, so that Django has no connection to"
            " it. With 'database', an alias of DATABASES, in its CONFIG this page shows what is there."
        )
    try:
        is_there = installed_revision(connections[layer.alias], layer.schema) is not None
    except DatabaseError as error:
        return None, f"The database “{layer.alias}” does not let Django read the tables: {error}"
    if not is_there:
        return None, (
            f"There are no tables in the schema “{layer.schema}” of the database “{layer.alias}”:"
            " `manage.py check --database` says which command makes them."
        )
    return layer.alias, None


def _elsewhere() -> list[str]:
    """The layers whose tables are not those of the main layer."""
    main = main_layer()
    shown = main and (main.alias, main.schema)
    return [layer.name for layer in configured_layers() if main and (layer.alias, layer.schema) != shown]


def _distance(moment: datetime) -> str:
    """A moment as people say it: `in 12 s`, `3 min ago`."""
    seconds = round((moment - timezone.now()).total_seconds())
    amount = f"{abs(seconds)} s" if abs(seconds) < 120 else f"{abs(seconds) // 60} min"
    return f"in {amount}" if seconds > 0 else f"{amount} ago"
