"""Backends for Django, as projects and packages derive them from PostgreSQL's."""
