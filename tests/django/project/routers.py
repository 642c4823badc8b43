"""Which tables go to which database."""

from typing import Any


class OnlyMessages:
    """The tables of pgchannels lie in one database, and no others."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        """Whether a migration of this app applies to this database."""
        return (app_label == "pgchannels") == (db == "messages")
