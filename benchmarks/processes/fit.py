"""Finds the coefficients of the model in what was observed."""

from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Final

import numpy

from benchmarks.model import Coefficients
from benchmarks.processes.measure import Observation

FITTED: Final = ("idle", "single", "batches", "heard")
_MOST_PROCESSES: Final = 200  # more of them check what follows from these
_LEAST_CORES: Final = 0.01  # below that, the system's clock of ten milliseconds decides


def fitted(observations: Sequence[Observation]) -> Coefficients:
    """Least squares of the relative errors, without a negative cost; what saturates the machine is left out."""
    used = [one for one in observations if one.kind in FITTED and not one.is_bare and one.processes <= _MOST_PROCESSES]
    weights = numpy.array([1 / max(one.cores, _LEAST_CORES) for one in used])
    happened = numpy.array([astuple(one.counts) for one in used]) * weights[:, None]
    target = numpy.array([one.cores for one in used]) * weights
    names = [field.name for field in fields(Coefficients)]
    kept = list(range(len(names)))
    while True:
        found = numpy.linalg.lstsq(happened[:, kept], target, rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    values = dict.fromkeys(names, 0.0) | {names[place]: float(value) for place, value in zip(kept, found, strict=True)}
    return Coefficients.of(values)
