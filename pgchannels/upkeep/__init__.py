"""Keeps a node alive in the database, and the log small."""
