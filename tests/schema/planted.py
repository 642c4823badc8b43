"""Functions and operators that a stranger plants in `public`, under the names of those that our functions use."""

from typing import Final

import asyncpg

CAUGHT: Final = "what a stranger planted"
PATH: Final = "public, pg_catalog, pgchannels"

_TYPES: Final = (
    *(
        "bool",
        "int2",
        "int4",
        "int8",
        "float8",
        "numeric",
        "text",
        "name",
        "oid",
        "bytea",
        "uuid",
        "interval",
        "timestamptz",
    ),
    *("_int2", "_int4", "_int8", "_text", "_bytea"),
)

# For each function of the catalog with a name that our sources mention: one for the very types of its arguments, or
# for each type where it takes any. So they are better matches than what is meant, wherever the path leads to them.
_FUNCTIONS: Final = """
SELECT DISTINCT quote_ident(p.proname) AS name, array_to_string(ARRAY(
    SELECT CASE argument.type
        WHEN 'anyarray'::regtype THEN array_type::text WHEN 'anycompatiblearray'::regtype THEN array_type::text
        WHEN 'anyelement'::regtype THEN element::text WHEN 'anycompatible'::regtype THEN element::text
        WHEN '"any"'::regtype THEN element::text ELSE argument.type::regtype::text END
    FROM unnest(p.proargtypes) WITH ORDINALITY AS argument (type, n) ORDER BY n
), ', ') AS arguments
FROM pg_proc AS p, unnest($1::regtype[], $2::regtype[]) AS any_type (element, array_type)
WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.prorettype <> 'trigger'::regtype
  AND NOT (p.proargtypes::oid[] && ARRAY['internal'::regtype, 'cstring'::regtype]::oid[])
  AND EXISTS (
      SELECT FROM pg_proc AS ours WHERE ours.pronamespace = 'pgchannels'::regnamespace
      AND ours.prosrc ~ ('\\m' || p.proname || '\\(')
  )
"""
_OPERATORS: Final = ("=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "||", "&", "|", "<<", ">>", "@>", "~")


async def plant(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Plant them all, as whoever connects; returns how many operators and functions there are now."""
    arrays = [f"{kind}[]" for kind in _TYPES if kind[0] != "_"]
    elements = [kind for kind in _TYPES if kind[0] != "_"]
    functions = [
        f"CREATE FUNCTION public.{name}({arguments}) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE '{CAUGHT}'; END $$"
        for name, arguments in await connection.fetch(_FUNCTIONS, elements, arrays)
    ]
    caught = [
        f"CREATE FUNCTION public.caught({kind}, {kind}) RETURNS bool LANGUAGE plpgsql"
        f" AS $$ BEGIN RAISE '{CAUGHT}'; END $$"
        for kind in _TYPES
    ]
    operators = [
        f"CREATE OPERATOR public.{sign} (leftarg = {kind}, rightarg = {kind}, function = public.caught)"
        for kind in _TYPES
        for sign in _OPERATORS
    ]
    await connection.execute(";".join(functions + caught + operators))
    return len(functions) + len(operators)
