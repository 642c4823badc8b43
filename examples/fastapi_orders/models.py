"""The tables of a small shop."""

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """What the models have in common."""


class Item(Base):
    """Something to buy; there cannot be fewer than none left."""

    __tablename__ = "items"
    __table_args__ = (CheckConstraint("left_in_stock >= 0", name="items_in_stock"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    left_in_stock: Mapped[int]


class Order(Base):
    """One item for one customer."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    item_name: Mapped[str] = mapped_column(ForeignKey(Item.name))
