"""A message layer in the PostgreSQL you already run."""

from pgchannels.errors import (
    ChannelFull,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    InvalidMessage,
    InvalidName,
    InvalidPosition,
    LayerClosed,
    MessagesLost,
    MessageTooLarge,
    PgChannelsError,
    SchemaMissing,
    SchemaOutdated,
    UnreadableMessage,
    WouldBlock,
)
from pgchannels.layer import MessageLayer
from pgchannels.messages import Gap, GapReason, Message, Position, Positions
from pgchannels.subscription import Subscription
from pgchannels.work import Work

__version__ = "0.1.0.dev0"

__all__ = [
    "ChannelFull",
    "ConfigurationError",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "Gap",
    "GapReason",
    "InvalidMessage",
    "InvalidName",
    "InvalidPosition",
    "LayerClosed",
    "Message",
    "MessageLayer",
    "MessageTooLarge",
    "MessagesLost",
    "PgChannelsError",
    "Position",
    "Positions",
    "SchemaMissing",
    "SchemaOutdated",
    "Subscription",
    "UnreadableMessage",
    "Work",
    "WouldBlock",
    "__version__",
]
