"""Cycles from counts: weights within physical bounds for each device, drawn towards those of its kind.

Every row weighs by its own latency (relative least squares), so that small networks count as much as large
ones, and a row that is off by more than is tolerated pulls no harder than one that is off by that much
(Huber's loss, by reweighting). The weights of a kind come from all of its devices, each with a factor of its
own for what the clock does not say (memory, throttling, compiler); a device's own weights stay near them
unless its rows say otherwise: ridge regression towards a common mean (a hierarchical model with a known
spread).
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from edgepack.calibrate.rows import Row
from edgepack.latency.features import FEATURES

Weights = NDArray[np.float64]
_ROUNDS_OF_KIND = 6
_ROUNDS_OF_DEVICE = 3

BOUNDS = {
    "multiply_float": (0.25, 3.0),
    "multiply_int": (0.25, 3.0),
    "divide": (1.0, 40.0),
    "vector": (0.25, 4.0),
    "load": (0.25, 4.0),
    "load_vector": (0.25, 5.0),
    "store": (0.1, 4.0),
    "store_vector": (0.25, 12.0),
    "branch": (0.1, 3.0),
    "other": (0.1, 2.0),
    "l1i_misses": (0.0, 60.0),
    "l1d_misses": (0.0, 25.0),
    "llc_sequential": (3.0, 120.0),
    "llc_random": (5.0, 400.0),
    "streamed": (0.0, 120.0),
}
"""Least and greatest cycles a unit, assumed from how wide these cores are: four instructions a cycle to one
in several, a division in at most 40, a vector store in at most 12 (up to 64 bytes, whose line may first be
fetched), a line from memory in at least 3. Without bounds a feature that few networks have (divisions, above
all) is bent to mend those networks' other errors."""


class Bounds(NamedTuple):
    """Least and greatest weight of each feature, float64 [features]; both 0 leave a feature out.

    `tolerated` is the relative error from which on a row pulls no harder.
    """

    least: Weights
    greatest: Weights
    tolerated: float = 0.1


def _bounds_without(*left_out: str) -> Bounds:
    pairs = [(0.0, 0.0) if name in left_out else BOUNDS[name] for name in FEATURES]
    return Bounds(*np.array(pairs).T)


OF_COUNTS = _bounds_without()
OF_ARITHMETIC = Bounds(np.zeros(2), np.array([100.0, 10_000.0]), np.inf)
"""Cycles a multiply-accumulate and a weight: not negative, and as good as free above. Plain least squares
serves them better: so far from the truth, no row is an outlier."""

CANDIDATES = (
    OF_COUNTS,
    _bounds_without("streamed"),
    _bounds_without("l1i_misses"),
    _bounds_without("streamed", "l1i_misses"),
)
"""The sets of features among which a fit chooses, by networks that it left out."""


def fit(rows: Iterable[Row], *, pull: float, bounds: Bounds = OF_COUNTS) -> dict[str, Weights]:
    """Return cycles a unit of each feature, float64 [features], by device.

    `pull` is how strongly a device is held to its kind (0: not at all).
    """
    devices: dict[str, Weights] = {}
    for members in by(rows, lambda row: row.device.kind).values():
        common = _common([row for row in members if not row.is_old] or members, bounds)
        for name, own in by(members, lambda row: row.device.name).items():
            devices[name] = drawn(own, common, pull, bounds)
    return devices


def drawn(own: list[Row], towards: Weights, pull: float, bounds: Bounds = OF_COUNTS) -> Weights:
    """Return weights from a device's `own` rows, held with strength `pull` to `towards` times a factor."""
    features, cycles = _matrix(own)
    errors = np.log(cycles / (features @ towards))
    towards = towards * float(np.exp(np.median(errors)))
    errors = errors - np.median(errors)
    relative = features / cycles[:, None]
    # A feature's pull is in proportion to what it can change, so that its unit does not matter.
    strength = np.sqrt(pull * (relative**2).sum(axis=0))
    weights, trust = towards, np.zeros(len(own))
    for _ in range(_ROUNDS_OF_DEVICE):
        before, trust = trust, _trust(errors, bounds)
        if np.array_equal(before, trust):
            break
        matrix = np.vstack([relative * trust[:, None], np.diag(strength)])
        weights = _solved(matrix, np.concatenate([trust, strength * towards]), bounds)
        errors = np.log(cycles / (features @ weights))
    return weights


def by(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """Return rows in groups, in the order in which they come."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _matrix(rows: list[Row]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array([row.features for row in rows]), np.array([row.cycles for row in rows])


def _common(rows: list[Row], bounds: Bounds) -> Weights:
    """Return the weights of a kind, found in turns with its devices' factors."""
    features, cycles = _matrix(rows)
    names, of_row = np.unique([row.device.name for row in rows], return_inverse=True)
    factors, trust = np.ones(len(names)), np.ones(len(rows))
    for _ in range(_ROUNDS_OF_KIND):
        relative = features * (factors[of_row] / cycles)[:, None]
        weights = _solved(relative * trust[:, None], trust, bounds)
        errors = np.log(cycles / (features @ weights))
        factors = np.exp([np.median(errors[of_row == index]) for index in range(len(names))])
        trust = _trust(errors - np.log(factors)[of_row], bounds)
    return weights * float(np.median(factors))


def _trust(errors: NDArray[np.float64], bounds: Bounds) -> NDArray[np.float64]:
    trust: NDArray[np.float64] = 1 / np.sqrt(np.maximum(1, np.abs(errors) / bounds.tolerated))
    return trust


def _solved(matrix: NDArray[np.float64], wanted: NDArray[np.float64], bounds: Bounds) -> Weights:
    used = bounds.greatest > 0
    least, greatest = bounds.least[used], bounds.greatest[used]
    # In units of the greatest weight every column is of a size, which the solver wants.
    scaled = lsq_linear(
        matrix[:, used] * greatest, wanted, (least / greatest, np.ones(len(least))), method="bvls"
    )
    weights = np.zeros(len(used))
    weights[used] = np.clip(scaled.x * greatest, least, greatest)
    return weights
