"""Measures how long the database takes for what the layer asks of it."""

from pgchannels.database.compiling import driver_text
from pgchannels.database.statements.sending import deliver
from pgchannels.database.tables import Schema


def explained_delivery(schema: Schema) -> str:
    """Deliver a batch as `deliver` does, with its parameters; returns the plan with its timings as JSON."""
    return f"EXPLAIN (ANALYZE, FORMAT JSON) {driver_text(deliver, schema)}"
