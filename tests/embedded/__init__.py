"""The embedded server, on real processes."""
