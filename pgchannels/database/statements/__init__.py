"""The statements, one pure function each, named as requests."""
