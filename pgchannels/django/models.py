"""The views of a schema that are made for people, as read-only models. They hold no secret of a node."""

from datetime import datetime
from typing import ClassVar

from django.db import models

from pgchannels.names import DEFAULT_SCHEMA


class NodeStatus(models.Model):
    """A running layer in one event loop of one process."""

    name: "models.TextField[str, str]" = models.TextField(primary_key=True)
    prefix: "models.TextField[str | None, str | None]" = models.TextField(null=True)
    host: "models.TextField[str, str]" = models.TextField()
    process_id: "models.IntegerField[int, int]" = models.IntegerField()
    process: "models.TextField[str, str]" = models.TextField()
    is_alive: "models.BooleanField[bool, bool]" = models.BooleanField("alive")
    leased_until: "models.DateTimeField[datetime, datetime]" = models.DateTimeField()
    groups: "models.BigIntegerField[int, int]" = models.BigIntegerField()
    queues: "models.BigIntegerField[int, int]" = models.BigIntegerField()
    full_channels: "models.BigIntegerField[int, int]" = models.BigIntegerField()

    class Meta:
        managed = False
        db_table = f'"{DEFAULT_SCHEMA}"."node_status"'
        default_permissions = ("view",)
        ordering: ClassVar = ["prefix", "name"]
        verbose_name = "node"

    def __str__(self) -> str:
        return self.name


class GroupStatus(models.Model):
    """A group, or topic, that has members."""

    address: "models.TextField[str, str]" = models.TextField(primary_key=True)
    prefix: "models.TextField[str, str]" = models.TextField()
    name: "models.TextField[str, str]" = models.TextField()
    nodes: "models.BigIntegerField[int, int]" = models.BigIntegerField()
    queues: "models.BigIntegerField[int, int]" = models.BigIntegerField()
    last_message_at: "models.DateTimeField[datetime | None, datetime | None]" = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = f'"{DEFAULT_SCHEMA}"."group_status"'
        default_permissions = ("view",)
        ordering: ClassVar = ["prefix", "name"]
        verbose_name = "group"

    def __str__(self) -> str:
        return self.name


class QueueStatus(models.Model):
    """A work queue, and what waits in it."""

    address: "models.TextField[str, str]" = models.TextField(primary_key=True)
    prefix: "models.TextField[str, str]" = models.TextField()
    name: "models.TextField[str, str]" = models.TextField()
    waiting: "models.BigIntegerField[int, int]" = models.BigIntegerField()
    waiting_since: "models.DateTimeField[datetime | None, datetime | None]" = models.DateTimeField(null=True)
    nodes: "models.BigIntegerField[int, int]" = models.BigIntegerField("receiving nodes")
    groups: "models.BigIntegerField[int, int]" = models.BigIntegerField()
    in_progress: "models.BigIntegerField[int, int]" = models.BigIntegerField()

    class Meta:
        managed = False
        db_table = f'"{DEFAULT_SCHEMA}"."queue_status"'
        default_permissions = ("view",)
        ordering: ClassVar = ["-waiting", "prefix", "name"]
        verbose_name = "work queue"

    def __str__(self) -> str:
        return self.name


STATUS_MODELS = (NodeStatus, GroupStatus, QueueStatus)


def use_schema(schema: str) -> None:
    """Let the models read the views of this schema. Migrations keep the name that is written above."""
    for model in STATUS_MODELS:
        view = model._meta.db_table.rpartition(".")[2]
        model._meta.db_table = f'"{schema}".{view}'
