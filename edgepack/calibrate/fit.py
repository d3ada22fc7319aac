"""Cycles from counts: non-negative weights for each device, drawn towards those of its kind.

Every row weighs by its own latency (relative least squares), so that small networks count as much as large
ones. The weights of a kind come from all of its devices, each with a factor of its own for what the clock
does not say (memory, throttling, compiler); a device's own weights stay near them unless its rows say
otherwise, which is ridge regression towards a common mean (a hierarchical model with a known spread).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from edgepack.calibrate.rows import Row

Weights = NDArray[np.float64]
_ROUNDS = 4


class Fit(NamedTuple):
    """Cycles a unit of each feature: float64 [len(FEATURES)] by device, and by kind for unknown devices."""

    devices: Mapping[str, Weights]
    kinds: Mapping[str, Weights]


def fit(rows: Iterable[Row], *, pull: float) -> Fit:
    """Fit all devices of `rows`; `pull` is how strongly a device is held to its kind (0: not at all)."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row.device.kind, []).append(row)
    devices: dict[str, Weights] = {}
    kinds: dict[str, Weights] = {}
    for kind, members in by_kind.items():
        common, factors = _common(members)
        kinds[kind] = common * float(np.median(list(factors.values())))
        for name, factor in factors.items():
            own = [row for row in members if row.device.name == name]
            devices[name] = _drawn(own, common * factor, pull)
    return Fit(devices, kinds)


def predicted_cycles(weights: Weights, row: Row) -> float:
    """Return the cycles that `weights` give a row."""
    return float(weights @ row.features)


def _common(rows: list[Row]) -> tuple[Weights, dict[str, float]]:
    """Return the weights of a kind and its devices' factors, found in turns."""
    names = sorted({row.device.name for row in rows})
    factors = dict.fromkeys(names, 1.0)
    for _ in range(_ROUNDS):
        relative = [row.features / (row.cycles / factors[row.device.name]) for row in rows]
        weights = _solved(np.array(relative), np.ones(len(rows)))
        for name in names:
            ratios = [row.cycles / predicted_cycles(weights, row) for row in rows if row.device.name == name]
            factors[name] = float(np.exp(np.median(np.log(ratios))))
    return weights, factors


def _drawn(rows: list[Row], towards: Weights, pull: float) -> Weights:
    relative = np.array([row.features / row.cycles for row in rows])
    # A feature's pull is in proportion to what it can change, so that its unit does not matter.
    strength = np.sqrt(pull * (relative**2).sum(axis=0))
    matrix = np.vstack([relative, np.diag(strength)])
    return _solved(matrix, np.concatenate([np.ones(len(rows)), strength * towards]))


def _solved(matrix: NDArray[np.float64], wanted: NDArray[np.float64]) -> Weights:
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    found: Weights = nnls(matrix / scale, wanted)[0] / scale
    return found
