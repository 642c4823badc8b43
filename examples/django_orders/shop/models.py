"""The tables of the shop."""

from django.db import models


class Item(models.Model):
    """Something to buy; there cannot be fewer than none left."""

    name = models.CharField(max_length=40, primary_key=True)
    left_in_stock = models.PositiveIntegerField()


class Order(models.Model):
    """One item for one customer."""

    customer = models.CharField(max_length=40)
    item = models.ForeignKey(Item, on_delete=models.PROTECT)
