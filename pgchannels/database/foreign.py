"""What others have put into the schema, or taken from it, as a revision meets it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError

from pgchannels.database.failures import of_driver
from pgchannels.database.wording import in_words
from pgchannels.errors import ConfigurationError

_NOT_OURS: Final = (
    asyncpg.DuplicateTableError,
    asyncpg.DuplicateObjectError,
    asyncpg.DuplicateFunctionError,
    asyncpg.DuplicateColumnError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedObjectError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedColumnError,
    asyncpg.WrongObjectTypeError,
    asyncpg.InvalidFunctionDefinitionError,
    asyncpg.DependentObjectsStillExistError,
)


@contextmanager
def other_tables_named(schema: str) -> Iterator[None]:
    """Raise an error that names the schema if what a revision meets in it is not what the one before has made."""
    try:
        yield
    except DBAPIError as error:
        failure = of_driver(error)
        if not isinstance(failure, _NOT_OURS):
            raise
        raise ConfigurationError(
            f"the schema {schema!r} has tables or functions that `pgchannels upgrade` did not make, or lacks some that"
            f" it made: {in_words(failure)}; choose another schema, or drop this one"
        ) from error
