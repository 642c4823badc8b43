"""Which revision the tables of a database are at, asked on Django's own connection."""

from django.db.backends.base.base import BaseDatabaseWrapper

from pgchannels.database.revision import version_query, version_table_query


def installed_revision(connection: BaseDatabaseWrapper, schema: str) -> str | None:
    """The revision that the tables of the schema are at, None where there are none."""
    with connection.cursor() as cursor:
        cursor.execute(version_table_query(schema))
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(version_query(schema))
        row = cursor.fetchone()
        return str(row[0]) if row else None
