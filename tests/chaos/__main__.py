"""`python -m tests.chaos --seconds 60 --seed 1`: faults at random, then a ledger; status 1 if it does not balance."""

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pgchannels.embedded import EmbeddedServer
from tests.chaos.crew import Way
from tests.chaos.faults import Kind
from tests.chaos.run import Outcome, run
from tests.support.poolers import pgbouncer, pgpool

_SHOWN = 10
_POLL_SECONDS = 0.2
_SESSIONS = 10  # of the server, for several times as many connections


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print progress and ledger; 0 if every promise was kept."""
    options = _parser().parse_args(arguments)
    print(f"chaos for {options.seconds:g} seconds with seed {options.seed}", flush=True)
    # Around the loop: a call of the server that is under way in a thread ends before the server does.
    with EmbeddedServer(durable=True) as server, _way(server, options) as way:
        directory = options.keep or server.socket_directory / "journals"  # which goes with the server
        directory.mkdir(parents=True)
        try:
            outcome = asyncio.run(_until_terminated(server, directory, way, options))
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("given up")
            return 1
    print(*outcome.ledger.lines(), *_troubles(outcome), sep="\n")
    return 0 if outcome.is_good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long faults happen")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="the same seed gives the same sequence of faults")
    parser.add_argument("--only", type=Kind, nargs="+", default=[], choices=list(Kind), help="only these faults")
    parser.add_argument("--durable", action="store_true", help="a durable log: crashes of the server lose nothing")
    parser.add_argument("--poll", action="store_true", help="all layers poll, in place of LISTEN")
    parser.add_argument(
        "--pooler",
        choices=["pgbouncer", "pgpool"],
        help="between layers and server; PgBouncer in transaction mode, with a listen_url beside it unless --poll",
    )
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave all journals in this new directory")
    return parser


@contextmanager
def _way(server: EmbeddedServer, options: argparse.Namespace) -> Iterator[Way]:
    chosen = {"poll": _POLL_SECONDS} if options.poll else {}
    if options.pooler == "pgbouncer":
        with pgbouncer(server, mode="transaction", most=_SESSIONS) as url:
            yield Way(url, None if options.poll else server.url(), chosen)
    elif options.pooler == "pgpool":
        with pgpool(server) as url:
            yield Way(url, None, chosen)
    else:
        yield Way(server.url(), None, chosen)


async def _until_terminated(server: EmbeddedServer, directory: Path, way: Way, options: argparse.Namespace) -> Outcome:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    chosen = {"seed": options.seed, "seconds": options.seconds, "only": options.only}
    return await run(server, directory, way, **chosen, is_durable=options.durable)


def _troubles(outcome: Outcome) -> list[str]:
    return [f"trouble: {trouble}" for trouble in outcome.troubles[:_SHOWN]]


if __name__ == "__main__":
    sys.exit(main())
