"""The work queue, by the commands of its README."""

import re
import signal
from contextlib import ExitStack

from tests.support.programs import EXAMPLES, Program, commands_of, eventually, run, running

FOLDER = EXAMPLES / "worker"
JOBS = 20
PHOTOS = [f"photo-{number}.jpg" for number in range(1, JOBS + 1)]


def test_workers_share_the_jobs_and_do_each_once(empty_database_url: str) -> None:
    environment = {"PGCHANNELS_URL": empty_database_url}
    upgrade, work, enqueue = commands_of("worker")
    run(upgrade, folder=FOLDER, environment=environment)
    with ExitStack() as stack:
        workers = [stack.enter_context(running(work, folder=FOLDER, environment=environment)) for _ in range(2)]
        for worker in workers:
            worker.line("waits for jobs")
        assert run(enqueue, folder=FOLDER, environment=environment) == f"sent {JOBS} jobs\n"
        eventually(lambda: len(_photos(*workers)) >= JOBS)
        for worker in workers:
            _stop(worker)
    assert sorted(_photos(*workers)) == sorted(PHOTOS)
    assert all(_photos(worker) for worker in workers)


def test_jobs_wait_for_a_worker(empty_database_url: str) -> None:
    environment = {"PGCHANNELS_URL": empty_database_url}
    upgrade, work, enqueue = commands_of("worker")
    run(upgrade, folder=FOLDER, environment=environment)
    run(enqueue, folder=FOLDER, environment=environment)
    with running(work, folder=FOLDER, environment=environment) as worker:
        eventually(lambda: len(_photos(worker)) >= JOBS)
        _stop(worker)
    assert _photos(worker) == PHOTOS


def _stop(worker: Program) -> None:
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0, worker.text()


def _photos(*workers: Program) -> list[str]:
    return [photo for worker in workers for photo in re.findall(r"made .* (photo-\d+\.jpg)", worker.text())]
