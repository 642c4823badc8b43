"""Background work under `manage.py runworker`."""

import asyncio
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.request import urlopen

import pytest

from tests.support.django_databases import connection_count
from tests.support.django_servers import BACKGROUND, CHANNELS, daphne, manage, runworker
from tests.support.programs import Program, eventually


@pytest.fixture
def workers(request: pytest.FixtureRequest, database_url: str) -> Iterator[list[Program]]:
    """As many workers as the test asks for, each for both channels."""
    with ExitStack() as running:
        yield [
            running.enter_context(runworker(*CHANNELS, folder=BACKGROUND, url=database_url))
            for _ in range(request.param)
        ]


def done(workers: list[Program], what: str = "generated") -> list[int]:
    """The jobs that were done so far, by all workers."""
    # Not by lines: those of a thread and of the event loop may run into each other.
    text = "".join(worker.text() for worker in workers)
    return sorted(int(number) for number in re.findall(rf"{what} (\d+)\.", text))


def end(worker: Program, how: signal.Signals) -> int:
    """The status with which a worker ends at a signal."""
    worker.process.send_signal(how)
    return worker.end()


def generate(number: int, url: str) -> None:
    """Send a job from a shell."""
    sending = (
        "from asgiref.sync import async_to_sync; from channels.layers import get_channel_layer; "
        f"async_to_sync(get_channel_layer().send)('thumbnails-generate', {{'type': 'generate', 'id': {number}}})"
    )
    manage("shell", "-c", sending, folder=BACKGROUND, url=url)


@pytest.mark.parametrize("workers", [1, 2], indirect=True)
def test_each_job_of_a_view_is_done_once(workers: list[Program], database_url: str) -> None:
    with daphne("thumbnails.asgi:application", folder=BACKGROUND, url=database_url) as port:
        for path in ("generate/1/100", "delete/7", "delete/8"):
            with urlopen(f"http://127.0.0.1:{port}/{path}/") as answer:
                assert answer.status == 200
        eventually(lambda: len(done(workers)) >= 100 and len(done(workers, "deleted")) >= 2)
    for worker in workers:
        end(worker, signal.SIGTERM)
    assert done(workers) == list(range(1, 101))
    assert done(workers, "deleted") == [7, 8]


@pytest.mark.parametrize("workers", [1], indirect=True)
def test_job_that_was_sent_while_no_worker_ran_waits_for_one(workers: list[Program], database_url: str) -> None:
    [first] = workers
    generate(1, database_url)
    first.line("generated 1.")
    end(first, signal.SIGTERM)
    generate(2, database_url)
    with runworker(*CHANNELS, folder=BACKGROUND, url=database_url) as second:
        second.line("generated 2.")
        assert done([first, second]) == [1, 2]


@pytest.mark.parametrize("workers", [1], indirect=True)
@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 0)])
def test_worker_that_is_told_to_end_ends_without_a_word_and_leaves_no_connection(
    workers: list[Program], how: signal.Signals, status: int, database_url: str
) -> None:
    [worker] = workers
    generate(1, database_url)
    worker.line("generated 1.")
    assert end(worker, how) == status
    assert "Traceback" not in worker.text()
    assert "rror" not in worker.text()
    eventually(lambda: asyncio.run(connection_count(database_url)) == 0)
