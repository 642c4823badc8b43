"""Which revision the tables of a database are at, asked on Django's own connection where it has one."""

from django.db.backends.base.base import BaseDatabaseWrapper
from sqlalchemy import URL

from pgchannels.database.database import Database
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


async def revision_at(url: str | URL, schema: str) -> str | None:
    """The same for a database that Django has no connection to."""
    connection = await Database(url).open()
    try:
        if not await connection.fetchval(version_table_query(schema)):
            return None
        revision: str | None = await connection.fetchval(version_query(schema))
        return revision
    finally:
        await connection.close()
