"""The tables, and something to buy."""

from django.db import migrations, models


def fill_shop(apps, _schema_editor):
    """Put items into it: two lamps, and more books than anybody reads."""
    item = apps.get_model("shop", "Item")
    item.objects.create(name="lamp", left_in_stock=2)
    item.objects.create(name="book", left_in_stock=100)


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Item",
            fields=[
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("left_in_stock", models.PositiveIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("customer", models.CharField(max_length=40)),
                ("item", models.ForeignKey(on_delete=models.deletion.PROTECT, to="shop.item")),
            ],
        ),
        migrations.RunPython(fill_shop, migrations.RunPython.noop),
    ]
