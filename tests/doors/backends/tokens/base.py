"""The backend; see the package."""

from collections.abc import Callable
from typing import Any

from django.db.backends.postgresql import base


class DatabaseWrapper(base.DatabaseWrapper):
    """As PostgreSQL's, but for the password."""

    def get_connection_params(self) -> dict[str, Any]:
        """The parameters, with a password of this moment."""
        parameters: dict[str, Any] = super().get_connection_params()
        token: Callable[[], str] = parameters.pop("token")
        return parameters | {"password": token()}
