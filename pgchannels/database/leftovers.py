"""What a downgrade leaves: functions and columns that the version before does not use.

A call that is under way during a downgrade goes on with the function as it began, and needs all that this calls and
reads. So nothing is dropped that it may need. The next upgrade, or the removal of all tables, drops it.
"""

from collections.abc import Iterable
from typing import Final

# Only what the owner of the log has made: others may have put something of the same name there.
_DROP: Final = """
DO $drop$
DECLARE
    left_over regprocedure;
BEGIN
    FOR left_over IN
        SELECT p.oid FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_class AS c ON c.oid = '{schema}.message'::regclass AND c.relowner = p.proowner
        WHERE p.pronamespace = c.relnamespace AND p.proname = ANY (ARRAY[{names}])
    LOOP
        EXECUTE format('DROP FUNCTION %s', left_over);
    END LOOP;
END
$drop$
"""


def dropping_functions(quoted_schema: str, names: Iterable[str]) -> str:
    """Return a statement that drops those of the functions that are there."""
    return _DROP.format(schema=quoted_schema, names=", ".join(f"'{name}'" for name in names))
