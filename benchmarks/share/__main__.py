"""Measures the CPU time of 1, 2 and 4 servers: `python -m benchmarks.share`."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.share.measure import Share, measure
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer

_COUNTS: Final = (1, 2, 4)


def main() -> None:
    """Measure, print, and write a record and a plot if a directory is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.share", description=__doc__)
    parser.add_argument("--messages", type=int, default=40_000, help="for each server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, help="a directory for share.json and servers.svg; needs matplotlib")
    parser.add_argument("--draw", type=Path, help="a share.json: draw it again in place of measuring")
    arguments = parser.parse_args()
    if arguments.draw is not None:
        shares = [Share(**share) for share in json.loads(arguments.draw.read_text())]
    else:
        shares = measured(arguments.messages, arguments.rounds)
    for share in shares:
        print(share)
    if arguments.save is not None:
        save(shares, arguments.save)


def measured(messages: int, rounds: int) -> list[Share]:
    """Measure each number of servers in turn, so that a slow moment of the machine does not hit one of them alone."""
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer(durable=True)) for _ in range(max(_COUNTS))]
        for server in servers:
            asyncio.run(migrations.upgrade(server.url()))
        return [
            asyncio.run(measure(servers[:count], messages=messages * count, round_number=number))
            for number in range(rounds)
            for count in _COUNTS
        ]


def save(shares: Sequence[Share], directory: Path) -> None:
    """Write the record and the plot."""
    from benchmarks.share.plot import draw

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "share.json").write_text(json.dumps([asdict(share) for share in shares], indent=1) + "\n")
    draw(shares, directory / "servers.svg")


if __name__ == "__main__":
    main()
