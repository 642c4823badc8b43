"""Payloads as msgpack, with extension types for `extensions` and for sets, whose content is a msgpack list."""

from typing import Any, Final

from msgpack import ExtType, Packer, unpackb

from pgchannels.codec.carriable import Default, as_received
from pgchannels.codec.extensions import EXTENSIONS, SET_CODE, SETS
from pgchannels.codec.members import frozen
from pgchannels.codec.plain import DEEPEST_NESTING, is_plain
from pgchannels.errors import InvalidMessage, MessageTooLarge, UnreadableMessage

_LOADERS: Final = {extension.code: extension.from_text for extension in EXTENSIONS.values()}
_CONTAINERS: Final = frozenset({dict, list, set})
_CONTAINER_BYTES: Final = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])  # lists and dicts
_FEW_ITEMS: Final = 16
_LONG_TEXT_BYTES: Final = 100
_BUFFER_BYTES: Final = 1024  # at first; allocating the usual 256 kB takes longer than packing a small message


def pack(payload: Any, default: Default | None = None) -> bytes:
    """Return the bytes of a payload; for `default` see `as_received`.

    :raises InvalidMessage: it holds a value that no message can carry; the text says where.
    :raises MessageTooLarge: it cannot fit into a message.
    """
    try:
        if is_plain(payload):  # before it is packed: what is shared could take all memory
            packed: bytes = Packer(default=_plain, strict_types=True, buf_size=_BUFFER_BYTES).pack(payload)
            return packed
    except Exception:  # noqa: S110 -- `as_received` reports the problem, or fixes it
        pass
    return _pack_received(as_received(payload, default=default))


def unpack(packed: bytes | memoryview) -> Any:
    """Return the payload in the bytes, a new copy each time.

    :raises UnreadableMessage: the bytes are not msgpack, or hold what no message can carry.
    """
    try:
        # First without bytes, since msgpack allows them as keys.
        value = unpackb(packed, ext_hook=_value, timestamp=3, max_bin_len=0)
    except Exception:  # the message is damaged, or holds bytes
        return _unpack_and_check(packed)
    if len(packed) <= DEEPEST_NESTING or type(value) is str or _is_shallow(value, packed):
        return value
    return _checked(value)


def _unpack_and_check(packed: bytes | memoryview) -> Any:
    try:
        value = unpackb(packed, ext_hook=_value, timestamp=3)
    except Exception as error:  # msgpack raises ValueError, its subclasses, and others on damaged bytes
        raise UnreadableMessage("the message is damaged: its bytes are no msgpack") from error
    return _checked(value)


def _checked(value: Any) -> Any:
    try:
        return value if is_plain(value) else as_received(value)
    except (InvalidMessage, MessageTooLarge, RecursionError) as error:
        raise UnreadableMessage(f"the message was sent by no pgchannels: {error}") from error


def _is_shallow(value: Any, packed: bytes | memoryview) -> bool:
    # Each level takes a byte that begins a list or a dict; texts and numbers can have such bytes, too. If texts are
    # long, looking at the few items of a flat message is faster.
    if type(value) is dict and len(value) <= _FEW_ITEMS and _CONTAINERS.isdisjoint(map(type, value.values())):
        return True
    return len(packed) - len(bytes(packed).translate(None, _CONTAINER_BYTES)) <= DEEPEST_NESTING


def _plain(value: Any) -> Any:
    # What msgpack does not pack itself: exact types only, since their behaviour is known.
    if type(value) is tuple:
        return list(value)
    packed = _extension(value)
    if len(packed.data) > _LONG_TEXT_BYTES:  # a Decimal, which may be here many times
        raise ValueError("a text whose length was not counted")
    return packed


def _extension(value: Any) -> ExtType:
    extension = EXTENSIONS[type(value)]
    return ExtType(extension.code, extension.to_text(value).encode())


def _pack_received(value: Any) -> bytes:
    packed: bytes = Packer(default=_plain_or_set, strict_types=True, buf_size=_BUFFER_BYTES).pack(value)
    return packed


def _plain_or_set(value: Any) -> Any:
    if type(value) in SETS:
        return ExtType(SET_CODE, _pack_received(list(value)))
    return list(value) if type(value) is tuple else _extension(value)


def _value(code: int, content: bytes) -> Any:
    return _read_set(content) if code == SET_CODE else _LOADERS[code](content.decode())


def _read_set(content: bytes) -> set[Any]:
    # Not by recursion: each call of msgpack takes 40 kB of the stack.
    packed_sets = [_PackedSet(content, depth=1)]
    for packed_set in packed_sets:  # inner sets are appended after those that hold them
        packed_sets += packed_set.unpack()
    for packed_set in reversed(packed_sets):
        packed_set.freeze()
    return set(packed_sets[0].members)


class _PackedSet:
    """A set being unpacked: its content, then its items, which may hold packed sets, then its members."""

    def __init__(self, content: bytes, *, depth: int) -> None:
        if depth > DEEPEST_NESTING:
            raise ValueError("its sets are nested too deep")
        self._content = content
        self._depth = depth
        self._items: list[Any] = []
        self._inner: list[_PackedSet] = []
        self.members: frozenset[Any] = frozenset()

    def unpack(self) -> "list[_PackedSet]":
        """Unpack the content, except for the sets in it, which are returned."""
        self._items = unpackb(self._content, ext_hook=self._value, timestamp=3)
        if type(self._items) is not list:
            raise ValueError("the content of a set is no list")
        self._content = b""  # it includes the content of the inner sets
        return self._inner

    def freeze(self) -> None:
        """Build the members; the inner sets must have theirs."""
        self.members = frozen(map(_hashable, self._items))

    def _value(self, code: int, content: bytes) -> Any:
        if code != SET_CODE:
            return _value(code, content)
        inner = _PackedSet(content, depth=self._depth + 1)
        self._inner.append(inner)
        return inner


def _hashable(item: Any) -> Any:
    if type(item) is list:
        return tuple([_hashable(inner) for inner in item])
    return item.members if type(item) is _PackedSet else item
