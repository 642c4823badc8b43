"""Which revision a database's tables are at; without Alembic, since every layer checks when it opens."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection

from pgchannels.arguments import shown
from pgchannels.database.wording import Place
from pgchannels.errors import ConfigurationError, SchemaMissing, SchemaOutdated
from pgchannels.names import DEFAULT_SCHEMA, require_valid_schema

VERSION_TABLE: Final = "pgchannels_version"  # not Alembic's default name: a host application has one of its own
REVISIONS: Final = ("0001", "0002", "0003")  # all that are in alembic/, oldest first
UPGRADING: Final = 67  # the second number of the advisory lock


async def require_current_schema(
    fetch: Callable[[str], Awaitable[Sequence[Any]]],
    schema: str,
    place: Place,
    *,
    advice: Callable[[], str] | None = None,
) -> None:
    """Check that the tables are there, and not older than this code.

    :param fetch: runs a query and returns its rows.
    :param advice: returns what to do, if the caller knows better than `pgchannels upgrade`.
    :raises SchemaMissing: no tables; the text names the command that creates them.
    :raises SchemaOutdated: older tables; the text names the command that upgrades them.
    """
    [(is_there,)] = await fetch(version_table_query(schema))
    rows = await fetch(version_query(schema)) if is_there else []
    if rows and rows[0][0] not in REVISIONS[:-1]:
        return
    remedy = advice() if advice is not None else _advice(schema)
    if not rows:
        raise SchemaMissing(f"{place} has no pgchannels tables in the schema {schema!r}: {remedy}")
    raise SchemaOutdated(
        f"the pgchannels tables in the schema {schema!r} of {place} are at revision {rows[0][0]},"
        f" this version needs {REVISIONS[-1]}: {remedy}"
    )


def require_tables(connection: Connection, schema: str) -> str:
    """Return the revision of the tables, which may be older than this code.

    :raises SchemaMissing: there are none.
    """
    is_there = connection.exec_driver_sql(version_table_query(schema)).scalar()
    revision: str | None = connection.exec_driver_sql(version_query(schema)).scalar() if is_there else None
    if revision is None:
        raise SchemaMissing(f"there are no pgchannels tables in the schema {schema!r}: run `pgchannels upgrade`")
    return revision


def require_revision(connection: Connection, schema: str, least: str, *, what: str) -> None:
    """Require tables that are new enough for a command.

    :raises ConfigurationError: they are older than that.
    :raises SchemaMissing: there are none.
    """
    if (revision := require_tables(connection, schema)) < least:
        raise ConfigurationError(
            f"the pgchannels tables in the schema {schema!r} are at revision {revision}, {what} needs {least}: run"
            " `pgchannels upgrade`"
        )


def revisions_between(newer: str, older: str) -> list[str]:
    """Return the revisions that a downgrade leaves, newest first; `base` is before all of them.

    :raises ConfigurationError: this code does not know one of the two, or they are in the wrong order.
    """
    known = ("base", *REVISIONS)
    if newer not in known:
        raise ConfigurationError(
            f"the tables are at revision {newer}, which this version of pgchannels does not know: install the version"
            " that made them"
        )
    if older not in known[: known.index(newer) + 1]:
        raise ConfigurationError(
            f"{shown(older)} is no revision to go back to from {newer}: give one of"
            f" {', '.join(known[: known.index(newer)])}"
        )
    return list(reversed(known[known.index(older) + 1 : known.index(newer) + 1]))


def upgrading_lock(schema: str) -> str:
    """Return a query that makes other upgrades and downgrades of this schema wait for the end of the transaction."""
    return f"SELECT pg_catalog.pg_advisory_xact_lock({upgrading_key(schema)}, {UPGRADING})"


def upgrading_key(schema: str) -> str:
    """Return an expression for the first number of that lock. Any role can hold it: bound the wait."""
    return f"pg_catalog.hashtext('{require_valid_schema(schema)}')"


def version_table_query(schema: str) -> str:
    """Return a query whose one value says whether the schema has a version table."""
    # Not to_regclass(): a session that asked, then waited for an upgrade and asked again, would get its old answer.
    # Django's connection may have any search path, with other people's operators on it.
    equals = "OPERATOR(pg_catalog.=)"
    tables = f"pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid {equals} c.relnamespace"
    condition = f"n.nspname {equals} '{require_valid_schema(schema)}' AND c.relname {equals} '{VERSION_TABLE}'"
    # A view, or a policy, would run what its owner has written.
    plain = f"c.relkind {equals} 'r' AND NOT c.relrowsecurity"
    return f"SELECT EXISTS (SELECT FROM {tables} WHERE {condition} AND {plain})"  # noqa: S608


def strange_owner_query(schema: str) -> str:
    """Return a query for the owner of the schema, if that is a role which whoever upgrades must not trust.

    The owner can put functions of its own in the place of ours. Superusers are members of every role, and trust none.
    """
    equals = "OPERATOR(pg_catalog.=)"
    return f"""
        SELECT o.rolname FROM pg_catalog.pg_namespace AS n
        JOIN pg_catalog.pg_database AS d ON d.datname {equals} pg_catalog.current_database()
        JOIN pg_catalog.pg_roles AS o
          ON o.oid {equals} CASE WHEN pg_catalog.pg_get_userbyid(n.nspowner) {equals} 'pg_database_owner'
                            THEN d.datdba ELSE n.nspowner END
        JOIN pg_catalog.pg_roles AS me ON me.rolname {equals} CURRENT_USER
        WHERE n.nspname {equals} '{require_valid_schema(schema)}' AND NOT o.rolsuper
          AND (me.rolsuper OR NOT (o.oid {equals} d.datdba OR pg_catalog.pg_has_role(o.oid, 'MEMBER')))
    """  # noqa: S608


def require_trusted(owner: str | None, schema: str) -> None:
    """Raise if `strange_owner_query` found an owner.

    :raises ConfigurationError: it did; the text says what to do.
    """
    if owner is not None:
        raise ConfigurationError(
            f"the schema {schema!r} belongs to the role {owner!r}, which could replace what is in it. Upgrade as that"
            f" role, or give the schema to the role that upgrades: ALTER SCHEMA {schema} OWNER TO …"
        )


def version_query(schema: str) -> str:
    """Return a query for the revision in the version table; no row if everything was downgraded."""
    return f'SELECT version_num FROM "{require_valid_schema(schema)}".{VERSION_TABLE}'  # noqa: S608


def _advice(schema: str) -> str:
    return (
        f"run `pgchannels upgrade --url …{'' if schema == DEFAULT_SCHEMA else f' --schema {schema}'}`"
        " (in Django with 'pgchannels.django' in INSTALLED_APPS: `manage.py migrate`)"
    )
