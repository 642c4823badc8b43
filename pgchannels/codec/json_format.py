"""Payloads as JSON, which other languages and SQL can read and write.

What JSON does not have is a dict with one key: `{"$uuid": "…"}`, `$datetime`, `$date`, `$decimal`, `$bytes` (base64)
and `$set` (a list). A dict of the user's with one key that begins with `$` gets one `$` more.
"""

import json
from base64 import b64decode, b64encode
from typing import Any

from pgchannels.codec.carriable import require_carriable
from pgchannels.codec.extensions import EXTENSIONS, SETS, extension_for
from pgchannels.errors import UnreadableMessage

_LOADERS = {f"${extension.name}": extension.from_text for extension in EXTENSIONS} | {"$bytes": b64decode, "$set": set}


def pack(payload: Any) -> bytes:
    """The text of a payload, in UTF-8.

    :raises InvalidMessage: it holds a value that no message can carry; the text says where.
    """
    require_carriable(payload)
    return json.dumps(_boxed(payload), ensure_ascii=False, separators=(",", ":")).encode()


def unpack(text: bytes | memoryview) -> Any:
    """The payload in a JSON text.

    :raises UnreadableMessage: it is no JSON.
    """
    try:
        return json.loads(bytes(text), object_hook=_unboxed)
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise UnreadableMessage("the message is damaged: its bytes are no JSON") from error


def _boxed(value: Any) -> Any:
    if isinstance(value, dict):
        is_like_a_box = len(value) == 1 and next(iter(value)).startswith("$")
        return {f"${key}" if is_like_a_box else key: _boxed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_boxed(item) for item in value]
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, SETS):
        return {"$set": [_boxed(item) for item in value]}
    extension = extension_for(value)
    return value if extension is None else {f"${extension.name}": extension.to_text(value)}


def _unboxed(pairs: dict[str, Any]) -> Any:
    if len(pairs) != 1:
        return pairs
    [(key, content)] = pairs.items()
    if key.startswith("$$"):
        return {key[1:]: content}
    load = _LOADERS.get(key)
    if load is None:
        return pairs
    return set(map(_hashable, content)) if key == "$set" else load(content)


def _hashable(item: Any) -> Any:
    if isinstance(item, list):
        return tuple(map(_hashable, item))
    return frozenset(item) if isinstance(item, set) else item
