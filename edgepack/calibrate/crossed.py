"""What a fit leaves out of itself to learn from: its features and pull, and how far it errs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.calibrate.fit import CANDIDATES, Bounds, Weights, by, fit
from edgepack.calibrate.rows import Row
from edgepack.latency.model import Calibrated, rank

COVERAGE = 0.9
FOLDS = 10
"""Of the intervals: the more, the stronger what `latency.model.cycles` promises. Fits are few enough."""
_FOLDS_OF_CHOICE = 4
PULLS = (0.1, 0.03, 0.3)
_OF_KIND = 8.0
"""How many rows the kind's mean error counts for in a device's own."""


class Choice(NamedTuple):
    """How to fit: how strongly devices are held to their kind, and with which features."""

    pull: float
    bounds: Bounds


class Crossed(NamedTuple):
    """Fits that each lack one fold of the networks. `fold` int [rows] says which lacks a row; `errors`
    float64 [rows] are its logarithms of true / predicted, NaN where its fit does not know the device."""

    fits: tuple[dict[str, Weights], ...]
    fold: NDArray[np.int64]
    errors: NDArray[np.float64]


def crossed(rows: list[Row], choice: Choice, folds: int) -> Crossed:
    """Fit without each fold in turn, and predict it."""
    nets = sorted({row.net for row in rows})
    fold = np.array([nets.index(row.net) % folds for row in rows])
    fits = []
    errors = np.full(len(rows), np.nan)
    for left_out in range(min(folds, len(nets))):
        train = [row for row, its in zip(rows, fold, strict=True) if its != left_out]
        fits.append(fit(train, pull=choice.pull, bounds=choice.bounds))
        for index in np.flatnonzero(fold == left_out):
            weights = fits[-1].get(rows[index].device.name)
            if weights is not None:
                errors[index] = log_error(weights, rows[index])
    return Crossed(tuple(fits), fold, errors)


def log_error(weights: Weights, row: Row) -> float:
    """Return the logarithm of true / predicted cycles."""
    return float(np.log(row.cycles / (row.features @ weights)))


def chosen(rows: list[Row], candidates: Sequence[Bounds] = CANDIDATES) -> Choice:
    """Return the features, and then the pull, that err least on networks that they were not fitted to."""
    first = PULLS[0]
    errors = {(first, index): _error(rows, Choice(first, each)) for index, each in enumerate(candidates)}
    _, index = min(errors, key=lambda key: errors[key])
    errors |= {(pull, index): _error(rows, Choice(pull, candidates[index])) for pull in PULLS[1:]}
    pull, index = min(errors, key=lambda key: errors[key])
    return Choice(pull, candidates[index])


def _error(rows: list[Row], choice: Choice) -> float:
    return float(np.nanmean(np.abs(crossed(rows, choice, _FOLDS_OF_CHOICE).errors)))


def calibrated(rows: list[Row], choice: Choice) -> dict[str, Calibrated]:
    """Return what is learnt of every device of `rows`."""
    left_out = crossed(rows, choice, FOLDS)
    fitted = fit(rows, pull=choice.pull, bounds=choice.bounds)
    sizes = np.abs(left_out.errors)
    errors: dict[str, dict[int, list[float]]] = {row.device.name: {} for row in rows}
    for row, fold, size in zip(rows, left_out.fold, sizes, strict=True):
        if np.isfinite(size):
            errors[row.device.name].setdefault(int(fold), []).append(float(size))
    scales = _scales(rows, sizes)
    worst = np.nanmax(sizes / [scales[row.device.name] for row in rows])
    found = {}
    for name, mine in by(rows, lambda row: row.device.name).items():
        without = {fold: left_out.fits[fold][name] for fold in sorted(errors[name])}
        found[name] = _learnt(mine, fitted[name], without, errors[name], float(worst * scales[name]))
    return found


def _learnt(
    mine: list[Row],
    weights: Weights,
    without: dict[int, Weights],
    errors: dict[int, list[float]],
    widest: float,
) -> Calibrated:
    scores = sorted(size for sizes in errors.values() for size in sizes)
    counted = [row.instructions for row in mine]
    return Calibrated(
        weights=_rounded(weights),
        width=round(scores[rank(len(scores), COVERAGE)] if scores else widest, 6),
        widest=round(widest, 6),
        rows=len(mine),
        least=min(counted),
        most=max(counted),
        most_memory_bytes=max(row.memory_bytes for row in mine),
        dtypes=tuple(sorted({row.dtype for row in mine})),
        is_old=2 * sum(row.is_old for row in mine) > len(mine),
        without=tuple(_rounded(each) for each in without.values()),
        errors=tuple(_rounded(sorted(errors[fold])) for fold in without),
    )


def _rounded(numbers: Iterable[float]) -> tuple[float, ...]:
    return tuple(float(f"{number:.5g}") for number in numbers)


def _scales(rows: list[Row], sizes: NDArray[np.float64]) -> dict[str, float]:
    """Return each device's mean error, drawn towards its kind's."""
    names = np.array([row.device.name for row in rows])
    kinds = np.array([row.device.kind for row in rows])
    scales = {}
    for name in sorted(set(names)):
        mine, of_kind = sizes[names == name], sizes[kinds == kinds[names == name][0]]
        known = np.isfinite(mine)
        drawn = mine[known].sum() + _OF_KIND * np.nanmean(of_kind)
        scales[name] = float(drawn / (known.sum() + _OF_KIND))
    return scales
