"""The cluster of the tests leaves nothing behind, also when the test is killed."""

import sys
from pathlib import Path

from tests.support.programs import descendants_of, eventually, first, is_alive, running

ENTER = """
import time
from tests.support.patroni import PatroniCluster
with PatroniCluster():
    time.sleep(600)
"""
ROOT = Path(__file__).parents[2]


def directories_of(pid: int) -> list[Path]:
    """The directory of its cluster, by the arguments of its keeper."""
    arguments = [Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in descendants_of(pid)]
    return [Path(words[-2]) for words in arguments if any("keeper.py" in word for word in words)]


def test_cluster_goes_with_the_process_that_entered_it() -> None:
    with running([sys.executable, "-c", ENTER], folder=ROOT, environment={"PYTHONPATH": str(ROOT)}) as program:
        directory = first(lambda: directories_of(program.pid))
        eventually((directory / "one/data/postmaster.pid").exists)
        pids = descendants_of(program.pid)
        assert len(pids) > 5
        program.process.kill()
        eventually(lambda: not directory.exists() and not any(map(is_alive, pids)))
