"""How messages get into the log."""
