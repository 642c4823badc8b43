"""Changes of tables in use on Django's own connection; see `pgchannels.database.short_locks`."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from pgchannels.database.revision import require_trusted, strange_owner_query
from pgchannels.database.short_locks import LOCKED_OUT, LOSING, PAUSE_SECONDS, TIMEOUT_SECONDS, Patience
from pgchannels.database.statements.holders import holders_query
from pgchannels.django.revision import installed_revision
from pgchannels.errors import PgChannelsError


def change_tables(
    schema_editor: BaseDatabaseSchemaEditor,
    schema: str,
    steps: Mapping[str, str],
    script: Callable[[str, str], str],
) -> None:
    """Run the script of the step from the revision that the tables are at, if there is one; behind a savepoint.

    Whenever somebody's lock is in the way, the savepoint gives all locks back, and after a pause it begins anew.

    :raises CommandError: others held locks for too long, or a downgrade would lose something; nothing was changed.
    """
    connection, patience = schema_editor.connection, Patience(TIMEOUT_SECONDS)
    while True:
        try:
            with transaction.atomic(using=connection.alias):
                found = _locked_revision(connection, schema, patience)
                if found in steps:
                    schema_editor.execute(script(schema, steps[found]), params=None)
                return
        except DatabaseError as error:
            if _code(error) == LOSING:
                raise CommandError(_text(error)) from error
            if _code(error) not in LOCKED_OUT:
                raise
            if patience.is_over:
                raise CommandError(str(_exhausted(connection, schema, patience))) from error
        time.sleep(PAUSE_SECONDS)


def _locked_revision(connection: BaseDatabaseWrapper, schema: str, patience: Patience) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.current_setting('lock_timeout')")
        [lock_timeout] = cursor.fetchone()
        for statement in patience.locking(schema):  # another command may be halfway through
            cursor.execute(statement)
        cursor.execute(strange_owner_query(schema))
        if (row := cursor.fetchone()) is not None:
            require_trusted(row[0], schema)
        # The script sets its own.
        cursor.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", [lock_timeout])
    return installed_revision(connection, schema) or "base"


def _exhausted(connection: BaseDatabaseWrapper, schema: str, patience: Patience) -> PgChannelsError:
    with connection.cursor() as cursor:
        cursor.execute(holders_query(schema))
        return patience.exhausted(schema, cursor.fetchall())


def _code(error: DatabaseError) -> str | None:
    """The code of the server's error, as psycopg or psycopg2 gives it."""
    return getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)


def _text(error: DatabaseError) -> str:
    diagnosis: Any = error.__cause__
    return str(diagnosis.diag.message_primary)
