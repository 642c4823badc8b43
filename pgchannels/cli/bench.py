"""`pgchannels bench`: measures what this database carries through pgchannels, from this machine."""

import argparse
import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import URL

from pgchannels.arguments import require_count, require_seconds
from pgchannels.cli.measuring import BATCH, Beside, Carried, Measured, measure
from pgchannels.cli.target import add_target, require_url
from pgchannels.errors import DatabaseUnavailable

_MOST_SENDERS, _MOST_SECONDS, _MOST_BYTES, _MOST_PROCESSES = 10_000, 60.0, 1_000_000, 5_000
_WAKES_ONLY_THE_CONCERNED: Final = 190_000  # of PostgreSQL


def add_bench_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("bench", help="measure what a database carries; leaves nothing behind in it")
    add_target(parser)
    parser.add_argument("--senders", type=int, default=100, help="that send at the same time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="for which they send (default: %(default)s)")
    parser.add_argument("--size", type=int, default=200, help="bytes of a payload (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="measure also beside N processes that listen in vain"
    )
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    url = _text(require_url(arguments))
    require_count("--senders", arguments.senders, most=_MOST_SENDERS, of="senders")
    require_seconds("--seconds", arguments.seconds, most=_MOST_SECONDS)
    require_count("--size", arguments.size, most=_MOST_BYTES, of="bytes")
    if arguments.processes is not None:
        require_count("--processes", arguments.processes, most=_MOST_PROCESSES, of="processes")
    measuring = measure(
        url, arguments.schema, arguments.senders, arguments.seconds, arguments.size, processes=arguments.processes or 0
    )
    try:
        measured = asyncio.run(_until_terminated(measuring))
    except (KeyboardInterrupt, asyncio.CancelledError) as end:
        return 128 + (signal.SIGINT if isinstance(end, KeyboardInterrupt) else signal.SIGTERM)
    except TimeoutError:
        raise DatabaseUnavailable(
            "the database is too slow to be measured: it did not keep up with few messages"
        ) from None
    print(*_lines(measured, arguments.senders), sep="\n")
    return 0


async def _until_terminated(measuring: Coroutine[Any, Any, Measured]) -> Measured:
    """Run it to its end, or until SIGTERM or SIGHUP, which cancels it as Ctrl-C does: so it leaves nothing behind."""
    task = asyncio.ensure_future(measuring)
    with suppress(NotImplementedError, RuntimeError, ValueError):  # not on every system, nor in every thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


def _lines(measured: Measured, senders: int) -> list[str]:
    alone = measured.alone
    return [
        f"{senders} senders, one subscriber   {alone.messages_per_second:,.0f} messages/s",
        f"one after another          p50 {_told(alone.p50)}, p99 {_told(alone.p99)} from call to delivery",
        f"in the database            {_told(measured.delivery_alone)} for a message that is sent by itself,",
        f"                           {_told(measured.delivery_in_batch)} each for {BATCH} that are sent together",
        *([] if measured.beside is None else _compared(alone, measured.beside)),
    ]


def _compared(alone: Carried, beside: Beside) -> list[str]:
    """A table of both, and what it means."""
    processes, are_all_woken = beside.processes, beside.room.version < _WAKES_ONLY_THE_CONCERNED
    woken = "each of them with every commit" if are_all_woken else "only those that a message concerns"
    left = beside.carried.messages_per_second / alone.messages_per_second
    columns = [_column(alone, listeners=1), _column(beside.carried, listeners=processes + 1 if are_all_woken else 1)]
    titles = ["messages/s", "commits/s", "wake-ups/s, at most", "p50", "p99"]
    return [
        "",
        f"{'':<22}{'alone':>12}{f'beside {processes} listening processes':>36}",
        *(f"{title:<22}{first:>12}{second:>36}" for title, first, second in zip(titles, *columns, strict=True)),
        "",
        f"{processes} listening processes leave {left:.0%} of the throughput, and a single message takes"
        f" {beside.carried.p50 / alone.p50:.1f} times as long.",
        f"This PostgreSQL wakes {woken}.",
        f"In service they take {3 * processes} connections, or {2 * processes} with connections=2. The server has"
        f" max_connections={beside.room.most}, and {beside.room.free} were free.",
    ]


def _column(carried: Carried, *, listeners: int) -> list[str]:
    rates = carried.messages_per_second, carried.commits_per_second, carried.commits_per_second * listeners
    return [*(f"{rate:,.0f}" for rate in rates), _told(carried.p50), _told(carried.p99)]


def _text(url: Any) -> str:
    """The URL for other processes, too; Django's command gives a function."""
    given = url() if callable(url) else url
    return given.render_as_string(hide_password=False) if isinstance(given, URL) else str(given)


def _told(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} µs"
