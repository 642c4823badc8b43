"""Types that msgpack and JSON lack, carried as text; sets, and bytes in JSON, are handled separately."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Extension:
    """A type, how its values become text and values again, and what can be asked of a value besides."""

    code: int  # of msgpack's extension types
    name: str
    kind: type
    to_text: Callable[[Any], str]
    from_text: Callable[[str], Any]
    fields: tuple[str, ...]


def _moment_text(value: datetime) -> str:
    text = datetime.isoformat(value)
    if text[-15:-6] == "00:00:00." and text[-16] != "T":  # `fromisoformat` reads such an offset as zero
        raise ValueError("an offset from UTC of less than a second")
    return text


_DATE: Final = ("year", "month", "day")
_TIME: Final = ("hour", "minute", "second", "microsecond")
# No code and no name may ever change its meaning: newer versions read messages of older ones.
# The text is by the type's own method, never a subclass's: that can return anything.
EXTENSIONS: Final[dict[type[Any], Extension]] = {
    UUID: Extension(1, "uuid", UUID, UUID.__str__, UUID, ("int", "hex")),
    datetime: Extension(2, "datetime", datetime, _moment_text, datetime.fromisoformat, (*_DATE, *_TIME, "tzinfo")),
    date: Extension(3, "date", date, date.isoformat, date.fromisoformat, _DATE),
    Decimal: Extension(4, "decimal", Decimal, Decimal.__str__, Decimal, ("real",)),
}
SET_CODE: Final = 5
SETS: Final = (set, frozenset)
