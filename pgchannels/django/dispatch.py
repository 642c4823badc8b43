"""Which messages Channels can dispatch: others end the consumer or the worker that gets them."""

from typing import Final

_OF_PROTOCOLS: Final = frozenset(
    {
        "http_disconnect",
        "http_request",
        "http_response_body",
        "http_response_start",
        "lifespan_shutdown",
        "lifespan_shutdown_complete",
        "lifespan_shutdown_failed",
        "lifespan_startup",
        "lifespan_startup_complete",
        "lifespan_startup_failed",
        "websocket_accept",
        "websocket_close",
        "websocket_connect",
        "websocket_disconnect",
        "websocket_receive",
        "websocket_send",
    }
)

# Every consumer has these, and none of them handles messages.
_OF_CONSUMERS: Final = frozenset(
    {
        "as_asgi",
        "base_send",
        "channel_layer",
        "channel_layer_alias",
        "channel_name",
        "channel_receive",
        "dispatch",
        "scope",
        "send",
    }
)


def reason_against(message: object, *, is_dispatched: bool = True, consumer: type | None = None) -> str | None:
    """Why Channels cannot take a message or, if it dispatches by type, cannot dispatch it; never quotes the content.

    :param consumer: the class that gets the message, if known.
    """
    if not isinstance(message, dict):
        return "Channels takes a dict"
    if not is_dispatched:
        return None
    kind = message.get("type")
    if not isinstance(kind, str):
        return "Channels takes a dict with a str as its 'type'"
    if not kind:
        return "its 'type' is empty, and Channels needs one"
    handler = kind.replace(".", "_")
    if handler.startswith("_"):
        return "its 'type' begins with '_' or '.', which Channels refuses"
    if handler in _OF_PROTOCOLS:
        return f"its 'type' is {kind}, which only a server may tell a consumer"
    if handler in _OF_CONSUMERS or (consumer is not None and _has_for_itself(consumer, handler)):
        return f"its 'type' is {kind}, which a consumer has for itself"
    return None


def _has_for_itself(consumer: type, name: str) -> bool:
    is_of_channels = any(name in vars(base) and base.__module__.startswith("channels.") for base in consumer.__mro__)
    return is_of_channels or not callable(getattr(consumer, name, id))
