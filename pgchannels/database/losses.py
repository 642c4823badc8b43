"""What a downgrade loses: each revision says it, and refuses to go back unless the caller may lose it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from pgchannels.errors import ConfigurationError

_QUERY: Final = "lost_by_downgrade.sql"  # in the folder of each revision
_MAY_LOSE: Final = "SELECT pg_catalog.set_config('pgchannels.may_lose', 'on', true)"
_REFUSE: Final = """
DO $refuse$
DECLARE
    losses text;
BEGIN
    IF current_setting('pgchannels.may_lose', true) = 'on' THEN
        RETURN;
    END IF;
    SELECT string_agg(lost.line, '; ') INTO losses FROM (
        {query}
    ) AS lost (line);
    IF losses IS NOT NULL THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE =
            'going back from revision {revision} loses something, and was not done: ' || losses ||
            '. To go back nevertheless, run `pgchannels downgrade {target} --yes`,'
            ' in Django `manage.py pgchannels downgrade {target} --yes` before `migrate`';
    END IF;
END
$refuse$
"""


def refusing_losses(folder: Path, quoted_schema: str, *, revision: str, target: str) -> str:
    """Return a statement that raises an error if going back from a revision to the one before it loses something.

    It is part of the downgrade itself, so it refuses by whichever door somebody comes, and sees what others have
    committed until then.
    """
    return _REFUSE.format(query=_query(folder, quoted_schema, revision), revision=revision, target=target)


def losses(connection: Connection, folder: Path, quoted_schema: str, revisions: Iterable[str]) -> list[str]:
    """Return what going back from these revisions loses, in sentences."""
    found = [connection.exec_driver_sql(_query(folder, quoted_schema, revision)).scalars() for revision in revisions]
    return [line for lines in found for line in lines]


def allow_losses(connection: Connection) -> None:
    """Let this transaction lose what a downgrade loses."""
    connection.exec_driver_sql(_MAY_LOSE)


def require_no_losses(found: list[str], target: str) -> None:
    """Raise if a downgrade loses something.

    :raises ConfigurationError: it does; the text says what, and what to do.
    """
    if found:
        raise ConfigurationError(
            f"going back to {target} loses something, and was not done: {'; '.join(found)}. To go back nevertheless,"
            " give --yes"
        )


def _query(folder: Path, quoted_schema: str, revision: str) -> str:
    return (folder / "sql" / revision / _QUERY).read_text().replace("{schema}", quoted_schema)
