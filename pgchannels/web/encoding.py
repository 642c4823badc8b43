"""Messages and gaps as browsers get them."""

import json
import math
from base64 import b64encode
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from pgchannels.messages import Gap, Message


def as_dict(message: Message) -> dict[str, Any]:
    """Return what clients get by default: `topic`, `position` as text for a later `since`, and `payload`."""
    return {"topic": message.topic, "position": str(message.position), "payload": message.payload}


def gap_as_dict(gap: Gap) -> dict[str, Any]:
    """Return what clients get in the place of lost messages: `reason`, and `count` or None."""
    return {"reason": gap.reason, "count": gap.count}


def json_text(value: Any) -> str:
    """Return a value as JSON, in ASCII and on one line.

    UUID, date, datetime and Decimal become text, bytes base64, sets lists, NaN and infinity null.

    :raises TypeError: JSON has nothing for a value in it.
    """
    try:
        return json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), default=lambda other: _finite(_plain(other)), separators=(",", ":"))


def _plain(value: Any) -> Any:
    match value:
        case UUID() | Decimal():
            return str(value)
        case date():
            return value.isoformat()
        case bytes():
            return b64encode(value).decode()
        case set() | frozenset():
            return list(value)
    raise TypeError(f"JSON has no {type(value).__name__}: let `encode` make something else of it")


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value
