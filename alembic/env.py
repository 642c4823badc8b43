"""Alembic's entry: runs the revisions through pgchannels.database.migrations, whichever door they came by."""

from pgchannels.database.migrations import run_environment

run_environment()
