"""What `manage.py test` runs in the project with the admin: its pages of nodes, groups and queues."""

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import TransactionTestCase, override_settings

from pgchannels.django.models import NodeStatus
from pgchannels.django.testing import EmptyChannelLayers

PAGES = ("nodestatus", "groupstatus", "queuestatus")
BACKEND = "pgchannels.django.PostgresChannelLayer"


class Pages(EmptyChannelLayers, TransactionTestCase):
    """The pages as somebody sees them who may view all."""

    async def page(self, name: str) -> str:
        """The text of a page."""
        if not hasattr(self, "user"):
            self.user = await User.objects.acreate_superuser("admin")
            await self.async_client.aforce_login(self.user)
        response = await self.async_client.get(f"/admin/pgchannels/{name}/")
        assert response.status_code == 200, response.status_code
        return response.content.decode()

    async def test_pages_show_what_is_there_and_no_id_of_a_node(self) -> None:
        """A node, a group with a channel and a queue, and a queue in which two messages wait."""
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_add("room", "archive")
        await layer.send("thumbnails", {"type": "first"})
        await layer.send("thumbnails", {"type": "second"})
        await layer.group_send("room", {"type": "chat.message"})
        node = await NodeStatus.objects.aget()
        assert node.name in channel
        assert (node.prefix, node.is_alive, node.groups, node.full_channels) == ("asgi", True, 1, 0)
        pages = {name: await self.page(name) for name in PAGES}
        assert node.name in pages["nodestatus"]
        assert "room" in pages["groupstatus"]
        assert all(queue in pages["queuestatus"] for queue in ("thumbnails", "archive"))
        assert '<td class="field-waiting">2</td>' in pages["queuestatus"]
        assert not any(secret in page for secret in await ids_of_nodes() for page in pages.values())
        await layer.close()

    async def test_nothing_can_be_added_changed_or_removed(self) -> None:
        """Not even by a superuser."""
        for name in PAGES:
            assert f"/admin/pgchannels/{name}/add/" not in await self.page(name)
            assert (await self.async_client.post(f"/admin/pgchannels/{name}/add/")).status_code == 403
        with self.assertRaises(Exception):  # noqa: B017, PT027 (whatever the database says)
            await NodeStatus.objects.acreate(name="made up")

    async def test_view_permission_lets_staff_see_one_page(self) -> None:
        """Each page has a permission of its own."""
        self.user = await User.objects.acreate_user("staff", is_staff=True)
        permission = await Permission.objects.aget(codename="view_groupstatus")
        await self.user.user_permissions.aadd(permission)
        await self.async_client.aforce_login(self.user)
        await self.page("groupstatus")
        assert (await self.async_client.get("/admin/pgchannels/nodestatus/")).status_code == 403

    async def test_layer_with_a_url_is_explained(self) -> None:
        """Django has no connection to its database."""
        with layers({"default": {"BACKEND": BACKEND, "CONFIG": {"url": "postgresql://127.0.0.1:1/shop"}}}):
            for name in PAGES:
                assert "Django has no connection" in await self.page(name)

    async def test_missing_tables_are_explained(self) -> None:
        """With the command that says more."""
        with layers({"default": {"BACKEND": BACKEND, "CONFIG": {"database": "default", "schema": "elsewhere"}}}):
            assert "There are no tables in the schema “elsewhere”" in await self.page("nodestatus")

    async def test_layers_whose_tables_lie_elsewhere_are_named(self) -> None:
        """The pages show one."""
        here = {"BACKEND": BACKEND, "CONFIG": {"database": "default"}}
        there = {"BACKEND": BACKEND, "CONFIG": {"url": "postgresql://127.0.0.1:1/shop"}}
        with layers({"default": here, "archive": there}):
            assert "Not shown, since their tables lie elsewhere: the layers “archive”" in await self.page("queuestatus")


def layers(entries: dict[str, object]) -> override_settings:
    """The settings with these layers."""
    return override_settings(CHANNEL_LAYERS=entries)


@sync_to_async
def ids_of_nodes() -> list[str]:
    """The secrets."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT id FROM {NodeStatus._meta.db_table.replace('node_status', 'node')}")
        return [str(secret) for (secret,) in cursor.fetchall()]
