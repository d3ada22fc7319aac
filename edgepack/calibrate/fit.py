"""Cycles from counts: weights within physical bounds for each device, drawn towards those of its kind.

Every row weighs by its own latency (relative least squares), so that small networks count as much as large
ones. The weights of a kind come from all of its devices, each with a factor of its own for what the clock
does not say (memory, throttling, compiler); a device's own weights stay near them unless its rows say
otherwise: ridge regression towards a common mean (a hierarchical model with a known spread).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from edgepack.calibrate.rows import Row
from edgepack.latency.features import FEATURES

Weights = NDArray[np.float64]
_ROUNDS = 4

BOUNDS = {
    "multiply_float": (0.25, 3.0),
    "multiply_int": (0.25, 3.0),
    "divide": (1.0, 40.0),
    "vector": (0.25, 4.0),
    "load": (0.25, 4.0),
    "load_vector": (0.25, 5.0),
    "store": (0.1, 4.0),
    "store_vector": (0.25, 6.0),
    "scalar": (0.2, 2.0),
    "l1d_misses": (0.0, 25.0),
    "llc_sequential": (3.0, 120.0),
    "llc_random": (5.0, 400.0),
}
"""Least and greatest cycles a unit, assumed from how wide these cores are: four instructions a cycle to one
in several, a division in at most 40, a line from memory in at least 3. Without bounds a feature that few
networks have (divisions, above all) is bent to mend those networks' other errors."""


class Bounds(NamedTuple):
    """Least and greatest weight of each feature, float64 [features]."""

    least: Weights
    greatest: Weights


OF_COUNTS = Bounds(*np.array([BOUNDS[name] for name in FEATURES]).T)
OF_ARITHMETIC = Bounds(np.zeros(2), np.array([100.0, 10_000.0]))
"""Cycles a multiply-accumulate and a weight: not negative, and as good as free above."""


class Fit(NamedTuple):
    """Cycles a unit of each feature: float64 [len(FEATURES)] by device, and by kind for unknown devices."""

    devices: Mapping[str, Weights]
    kinds: Mapping[str, Weights]


def fit(rows: Iterable[Row], *, pull: float, bounds: Bounds = OF_COUNTS) -> Fit:
    """Fit all devices of `rows`; `pull` is how strongly a device is held to its kind (0: not at all)."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row.device.kind, []).append(row)
    devices: dict[str, Weights] = {}
    kinds: dict[str, Weights] = {}
    for kind, members in by_kind.items():
        common, factors = _common(_telling(members), bounds)
        kinds[kind] = common * float(np.median(list(factors.values())))
        for name in sorted({row.device.name for row in members}):
            own = [row for row in members if row.device.name == name]
            factor = factors.get(name) or _factor(common, own)
            devices[name] = _drawn(own, common * factor, pull, bounds)
    return Fit(devices, kinds)


def fit_new_device(
    kin: list[Row], own: list[Row], *, core: str, pull: float, bounds: Bounds = OF_COUNTS
) -> Weights:
    """Return the weights of a device with few rows of its `own`, or none, from its kind's other devices.

    Without own rows it is as fast, clock for clock, as the devices of `kin` that have its `core` (else, as
    all of them).
    """
    telling = _telling(kin)
    common, factors = _common(telling, bounds)
    if own:
        return _drawn(own, common * _factor(common, own), pull, bounds)
    same = {row.device.name for row in telling if row.device.core == core} or set(factors)
    return common * float(np.median([factors[name] for name in sorted(same)]))


def _telling(rows: list[Row]) -> list[Row]:
    """Return the rows that tell about other devices of their kind, too; all when none does."""
    return [row for row in rows if not row.is_old] or rows


def _factor(common: Weights, rows: list[Row]) -> float:
    ratios = [row.cycles / predicted_cycles(common, row) for row in rows]
    return float(np.exp(np.median(np.log(ratios))))


def predicted_cycles(weights: Weights, row: Row) -> float:
    """Return the cycles that `weights` give a row."""
    return float(weights @ row.features)


def _common(rows: list[Row], bounds: Bounds) -> tuple[Weights, dict[str, float]]:
    """Return the weights of a kind and its devices' factors, found in turns."""
    names = sorted({row.device.name for row in rows})
    factors = dict.fromkeys(names, 1.0)
    for _ in range(_ROUNDS):
        relative = [row.features / (row.cycles / factors[row.device.name]) for row in rows]
        weights = _solved(np.array(relative), np.ones(len(rows)), bounds)
        for name in names:
            factors[name] = _factor(weights, [row for row in rows if row.device.name == name])
    return weights, factors


def _drawn(rows: list[Row], towards: Weights, pull: float, bounds: Bounds) -> Weights:
    relative = np.array([row.features / row.cycles for row in rows])
    # A feature's pull is in proportion to what it can change, so that its unit does not matter.
    strength = np.sqrt(pull * (relative**2).sum(axis=0))
    matrix = np.vstack([relative, np.diag(strength)])
    return _solved(matrix, np.concatenate([np.ones(len(rows)), strength * towards]), bounds)


def _solved(matrix: NDArray[np.float64], wanted: NDArray[np.float64], bounds: Bounds) -> Weights:
    # In units of the greatest weight every column is of a size, which the solver wants.
    scaled = bounds.least / bounds.greatest, np.ones(len(bounds.least))
    found = lsq_linear(matrix * bounds.greatest, wanted, scaled, method="bvls").x * bounds.greatest
    clipped: Weights = np.clip(found, *bounds)
    return clipped
