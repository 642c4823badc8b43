"""The servers that users name: by a mapping, or by a list of URLs."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeGuard

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from pgchannels.arguments import refusal, shown
from pgchannels.database.database import Database, Password
from pgchannels.database.url import DatabaseTarget, parse_url
from pgchannels.errors import ConfigurationError
from pgchannels.messages import is_server_name

ServerTargets: TypeAlias = Sequence[DatabaseTarget] | Mapping[str, DatabaseTarget]


def is_one(target: object) -> TypeGuard[DatabaseTarget]:
    """Whether somebody gives one database, and not servers."""
    return isinstance(target, URL) or not isinstance(target, Mapping | list | tuple)  # a URL is a tuple


def targets_by_name(argument: str, targets: object) -> dict[str, DatabaseTarget]:
    """Return where each server is, by its name.

    Without a name, a server is called by the first host of its URL, its port and its database: `db1:5432/app`.

    :raises ConfigurationError: there are none, two have the same name, or one has none.
    """
    if is_one(targets) or not isinstance(targets, Mapping | Sequence) or not targets:
        raise refusal(argument, targets, "a list of URLs, or a dict of names and URLs")
    if isinstance(targets, Mapping):
        return {_require_name(argument, name): target for name, target in targets.items()}
    by_name: dict[str, DatabaseTarget] = {}
    for target in targets:
        name = _name_of(argument, target)
        if name in by_name:
            raise ConfigurationError(f"{argument} has the server {name} twice: give each database once")
        by_name[name] = target
    return by_name


def require_no_listen_url(listen_url: object) -> None:
    """Require that a layer with several servers listens where it sends.

    :raises ConfigurationError: it has a URL to listen at.
    """
    if listen_url is not None:
        raise ConfigurationError(
            "listen_url leads to one database, and the layer has several servers: give the direct URL of each, or let"
            " the layer poll, as with poll=0.2"
        )


def databases_of(
    targets: Mapping[str, DatabaseTarget], also: Mapping[str, DatabaseTarget], *, password: Password | None
) -> dict[str, Database]:
    """Return the database of each server, by its name.

    :raises ConfigurationError: a name stands for two databases, or two for one, or a URL cannot be used.
    """
    for name in targets.keys() & also.keys():
        if targets[name] != also[name]:
            raise ConfigurationError(
                f"the server {name!r} has one URL in `database` and another in `also_receive_from`"
            )
    databases = {name: Database(target, password=password, server=name) for name, target in {**targets, **also}.items()}
    require_different(databases)
    return databases


def require_different(databases: Mapping[str, Database]) -> None:
    """Require that each server has a database of its own.

    :raises ConfigurationError: two names stand for the same one.
    """
    names: dict[tuple[str, str], str] = {}
    for name, database in databases.items():
        where = database.place.name, database.place.hosts
        if any(where) and (other := names.setdefault(where, name)) != name:
            raise ConfigurationError(f"the servers {other!r} and {name!r} are the same: {database.place}")


def _require_name(argument: str, name: object) -> str:
    if not is_server_name(name):
        raise ConfigurationError(
            f"{argument} has a server named {shown(name)}: a name has 1 to 100 ASCII letters, digits and '-_.:/[]'"
        )
    return str(name)


def _name_of(argument: str, target: object) -> str:
    if isinstance(target, AsyncEngine):
        target = target.url
    url = parse_url(target)  # type: ignore[arg-type]  # anything else raises an error that says what it should be
    name = f"{url.hosts[0]}/{url.database_name()}"
    if not is_server_name(name):
        raise ConfigurationError(
            f"{argument} has a server whose host or database is no name for it: give a dict of names and URLs"
        )
    return name
