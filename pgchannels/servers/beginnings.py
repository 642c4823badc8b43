"""Where topics begin on several servers, for somebody who has received up to some positions."""

from collections.abc import Collection, Mapping

from pgchannels.messages import Position, Positions


def key_of(topic: str, server: str) -> str:
    """Return how the positions of several servers call a topic on one of them; no server's name has an '@'."""
    return f"{topic}@{server}"


def positions_on(servers: Mapping[str, Mapping[str, Position]], *, first: str) -> Positions:
    """Return the positions of topics by server; nothing is said of other topics."""
    named = {key_of(topic, server): at for server, topics in servers.items() for topic, at in topics.items()}
    return Positions(Position(0, 0, first), named)


class Beginnings:
    """What some positions say of topics.

    A position without a server is one of the first server: that of a layer that had only this one. Where nothing is
    said, a topic begins at the start of the log.
    """

    def __init__(self, since: Positions, *, first: str) -> None:
        self._since, self._first = since, first
        self._named: dict[str, dict[str, Position]] = {}
        for key, position in since.ahead.items() if since.least.server else ():
            # A client appends the positions of later messages, which name their servers themselves.
            topic, _, server = (key, "", position.server) if position.server else key.rpartition("@")
            self._named.setdefault(topic, {})[server] = position

    def on(self, topic: str, server: str) -> Position:
        """Return the position after which a topic begins on a server."""
        return self._said_of(topic).get(server, Position(0, 0))

    def leave_out(self, topic: str, servers: Collection[str]) -> bool:
        """Whether a topic may have messages after these positions on a server that is not among those given."""
        return any(position.to_id() and server not in servers for server, position in self._said_of(topic).items())

    def _said_of(self, topic: str) -> Mapping[str, Position]:
        if topic in self._named:
            return self._named[topic]
        position = self._since.of(topic)
        return {position.server or self._first: position}
