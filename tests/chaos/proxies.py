"""A proxy before each server that a URL names, with the verbs of one."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Literal, Self

from sqlalchemy import make_url

from tests.support.proxy import Direction, Proxy


class Proxies:
    """The way of one process of the run to all servers; `url` names the proxies as its hosts."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._proxies = [Proxy(url) for url in urls]
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for proxy in self._proxies:
                await stack.enter_async_context(proxy)
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.aclose()

    @property
    def url(self) -> str:
        """The URL of the servers through their proxies."""
        first = make_url(self._proxies[0].url)
        if len(self._proxies) == 1:
            return first.render_as_string(hide_password=False)
        hosts = [f"127.0.0.1:{proxy.port}" for proxy in self._proxies]
        return f"postgresql://{first.username}@{','.join(hosts)}/{first.database}"

    def cut(self) -> None:
        for proxy in self._proxies:
            proxy.cut()

    def refuse(self) -> None:
        for proxy in self._proxies:
            proxy.refuse()

    def freeze(self, *directions: Direction, new_connections: bool) -> None:
        for proxy in self._proxies:
            proxy.freeze(*directions, new_connections=new_connections)

    def restore(self, *, held: Literal["forward", "drop"]) -> None:
        for proxy in self._proxies:
            proxy.restore(held=held)
