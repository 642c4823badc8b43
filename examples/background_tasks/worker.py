"""A worker that runs a task for each file: `python worker.py --pool prefork prices.csv broken.csv`."""

import argparse
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import psycopg
from tasks import URL, import_prices

PROCESSES = 2
TABLE = "CREATE TABLE IF NOT EXISTS prices (item text PRIMARY KEY, price numeric NOT NULL)"


def main() -> None:
    """Run the tasks, and say how each of them ended."""
    parser = argparse.ArgumentParser(description="imports files of prices")
    parser.add_argument("--pool", choices=["prefork", "threads"], default="prefork")
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    with psycopg.connect(URL) as connection:
        connection.execute(TABLE)
    with new_pool(arguments.pool) as pool:
        for file, task in [(file, pool.submit(import_prices, file)) for file in arguments.files]:
            print(f"{file}: {task.exception() or f'{task.result()} prices'}", flush=True)


def new_pool(kind: str) -> Executor:
    """Forked processes, as Celery has by default, or threads."""
    if kind == "threads":
        return ThreadPoolExecutor(PROCESSES)
    return ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("fork"))


if __name__ == "__main__":
    main()
