"""`python -m tests.chaos --seconds 60 --seed 1`: faults at random, then a ledger; status 1 if it does not balance."""

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from string import ascii_lowercase
from tempfile import TemporaryDirectory
from typing import Any

from pgchannels.embedded import EmbeddedServer
from tests.chaos.crew import TOPICS, Way
from tests.chaos.faults import Kind
from tests.chaos.run import Outcome, run
from tests.chaos.servers import OwnServers, PatroniServers, Servers
from tests.support.patroni import PatroniCluster
from tests.support.poolers import pgbouncer, pgpool

_SHOWN = 10
_POLL_SECONDS = 0.2
_SESSIONS = 10  # of the server, for several times as many connections


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print progress and ledger; 0 if every promise was kept."""
    options = _parser().parse_args(arguments)
    print(f"chaos for {options.seconds:g} seconds with seed {options.seed}", flush=True)
    # Around the loop: a call of the servers that is under way in a thread ends before they do.
    with ExitStack() as stack:
        try:
            servers, way = _servers(options, stack)
            directory = options.keep or Path(stack.enter_context(TemporaryDirectory(prefix="pgchannels-chaos-")))
            directory.mkdir(parents=True, exist_ok=options.keep is None)
            outcome = asyncio.run(_until_terminated(servers, directory, way, options))
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
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--servers", type=int, choices=range(1, 5), default=1, help="so many in one layer")
    where.add_argument(
        "--pooler",
        choices=["pgbouncer", "pgpool"],
        help="between layers and server; PgBouncer in transaction mode, with a listen_url beside it unless --poll",
    )
    where.add_argument(
        "--patroni",
        nargs="?",
        const="hosts",
        choices=["hosts", "haproxy"],
        help="a Patroni cluster, by the hosts of its servers or by HAProxy, with switchovers and failovers",
    )
    parser.add_argument("--synchronous", action="store_true", help="with --patroni: commits wait for a standby")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave all journals in this new directory")
    return parser


def _servers(options: argparse.Namespace, stack: ExitStack) -> tuple[Servers, Way]:
    chosen: dict[str, Any] = {"poll": _POLL_SECONDS} if options.poll else {}
    if options.patroni is not None:
        cluster = stack.enter_context(PatroniCluster(synchronous=options.synchronous))
        by_haproxy = options.patroni == "haproxy"
        urls = [cluster.proxied_url] if by_haproxy else [cluster.url(name) for name in cluster.nodes]
        return PatroniServers(cluster), Way({"": urls}, options=chosen)
    names = ascii_lowercase[: options.servers] if options.servers > 1 else [""]
    own = {name: stack.enter_context(EmbeddedServer(durable=True)) for name in names}
    if options.servers > 1:  # some topics are for those who publish in transactions
        chosen |= {"pinned": dict(zip(TOPICS[: len(TOPICS) // 2], cycle(own), strict=False))}
    direct = {name: [server.url()] for name, server in own.items()}
    return OwnServers(own), _way(options, stack, own[names[0]], Way(direct, options=chosen))


def _way(options: argparse.Namespace, stack: ExitStack, server: EmbeddedServer, direct: Way) -> Way:
    if options.pooler == "pgbouncer":
        url = stack.enter_context(pgbouncer(server, mode="transaction", most=_SESSIONS))
        return replace(direct, urls={"": [url]}, listen_url=None if options.poll else server.url())
    if options.pooler == "pgpool":
        return replace(direct, urls={"": [stack.enter_context(pgpool(server))]})
    return direct


async def _until_terminated(servers: Servers, directory: Path, way: Way, options: argparse.Namespace) -> Outcome:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    chosen = {"seed": options.seed, "seconds": options.seconds, "only": options.only}
    return await run(servers, directory, way, **chosen, is_durable=options.durable)


def _troubles(outcome: Outcome) -> list[str]:
    return [f"trouble: {trouble}" for trouble in outcome.troubles[:_SHOWN]]


if __name__ == "__main__":
    sys.exit(main())
