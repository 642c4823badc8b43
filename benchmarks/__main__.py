"""pgchannels and others, side by side: `python -m benchmarks`. `docs/benchmarks/` tells the method and its limits.

Compare figures within one run only: machines are noisy. A goal that is missed is said, and is no failure.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from benchmarks.contestants import ENTRIES, Addresses, missing
from benchmarks.databases import prepare_template
from benchmarks.machine import describe
from benchmarks.record import Record
from benchmarks.report import markdown
from benchmarks.rounds import Run
from benchmarks.servers import servers
from benchmarks.works import WORKS
from benchmarks.works.work import FULL, QUICK


def main() -> int:
    """Run what the command line asks for, and print the report."""
    options = parse_options()
    chosen = set(options.layers or ENTRIES)
    with servers({ENTRIES[name].server for name in chosen}) as addresses:
        record, failed = asyncio.run(measure(addresses, options, chosen))
    print(markdown(record))
    if options.save:
        save(record, options.save)
    for failure in failed:
        print(f"failed: {failure}", file=sys.stderr)
    return 1 if failed else 0


def save(record: Record, directory: Path) -> None:
    """Write a record into a directory: `record.json` for `benchmarks.compare`, `results.md`, and plots."""
    from benchmarks.plots import draw  # matplotlib is needed for plots only

    record.write(directory / "record.json")
    (directory / "results.md").write_text(f"# Results\n\n{markdown(record)}")
    draw(record, directory)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that everything works: the figures mean nothing")
    parser.add_argument("--rounds", type=int, help="how often each work is done (default: 5, long ones 3)")
    parser.add_argument("--only", nargs="+", metavar="WORK", help=", ".join(work.name for work in WORKS))
    parser.add_argument("--layers", nargs="+", metavar="NAME", choices=ENTRIES, help=", ".join(ENTRIES))
    parser.add_argument("--save", type=Path, metavar="DIRECTORY", help="write record.json, results.md and SVG files")
    options = parser.parse_args(arguments)
    options.works = [work for work in WORKS if not options.only or any(work.name.startswith(o) for o in options.only)]
    if not options.works:
        parser.error(f"no work has a name that begins with {' or '.join(options.only)}")
    return options


async def measure(addresses: Addresses, options: argparse.Namespace, contestants: set[str]) -> tuple[Record, list[str]]:
    """Run all works that are asked for; return what was measured, and what of ours failed."""
    started = time.monotonic()
    await prepare_template(
        addresses.postgres,
        with_channels_postgres="channels-postgres" in contestants and missing("channels-postgres", addresses) is None,
    )
    record = Record(await describe(addresses, contestants))
    run = Run(
        options.works,
        contestants,
        QUICK if options.quick else FULL,
        record,
        rounds=options.rounds,
        # What there is stays, also when the run is interrupted.
        after_each=lambda record: record.write(options.save / "record.json") if options.save else None,
    )
    await run.run(addresses)
    record.machine["took"] = f"{time.monotonic() - started:.0f} s"
    return record, run.failed


if __name__ == "__main__":
    sys.exit(main())
