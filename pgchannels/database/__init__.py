"""Everything PostgreSQL, and the only SQL."""
