"""Waits until all claimed work of a run is done, also what was under work with processes that were killed."""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg

from tests.chaos.crew import TASKS

_SECONDS: Final = 40
_AGAIN_SECONDS: Final = 0.5
_LEFT: Final = (
    "SELECT coalesce(sum(waiting + in_progress), 0) FROM pgchannels.queue_status WHERE name IN ($1, $1 || '.dead')"
)
# Half a minute passes until the lease of a killed process ends by itself. A crash empties the table of nodes, in which
# the living are soon again.
_END_LEASES: Final = """
UPDATE pgchannels.lease AS l SET leased_until = clock_timestamp() - interval '1 s'
WHERE l.node IN (SELECT n.id FROM pgchannels.node AS n WHERE n.process_id = ANY ($1))
   OR l.leased_until < clock_timestamp() + interval '15 s' AND NOT EXISTS (
       SELECT FROM pgchannels.node AS n WHERE n.id = l.node
   )
"""


async def all_done(url: str, ended: Callable[[], list[int]]) -> list[str]:
    """Wait until no job waits or is in progress; returns how many are left if that takes too long."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(_SECONDS):
            while await connection.fetchval(_LEFT, TASKS):
                await connection.execute(_END_LEASES, ended())
                await asyncio.sleep(_AGAIN_SECONDS)
    except TimeoutError:
        return [f"{await connection.fetchval(_LEFT, TASKS)} jobs are not done"]
    finally:
        await connection.close()
    return []
