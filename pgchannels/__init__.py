"""A message layer in the PostgreSQL you already run."""
