"""Intervals: bootstrap over users, float model and candidate on the same resampled users.

Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import MeasureError
from edgepack.results import Drop, Estimate

RESAMPLES = 2_000
_BLOCK = 1 << 22
"""Resampled values held in memory at once."""


def estimate(per_user: NDArray[np.float64], seed: int) -> Estimate:
    """Return the mean of a metric over users, float64 [users], with its 95 % interval.

    Raises MeasureError when there are no users or a value is NaN.
    """
    _check(per_user)
    means = _resampled_means(per_user[:, None], seed)[:, 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(value=float(per_user.mean()), low=float(low), high=float(high))


def drop(
    metric: str, float_per_user: NDArray[np.float64], candidate_per_user: NDArray[np.float64], seed: int
) -> Drop:
    """Return the relative loss of the candidate against the float model, both float64 [users], paired.

    Raises MeasureError when the users differ, a value is NaN, or the float model scores 0 (no loss is
    defined then).
    """
    return drops({metric: float_per_user}, {metric: candidate_per_user}, seed)[metric]


def drops(
    before: Mapping[str, NDArray[np.float64]], after: Mapping[str, NDArray[np.float64]], seed: int
) -> dict[str, Drop]:
    """Return `drop` of every metric of `before`, all on the same resampled users."""
    for metric, values in before.items():
        _check_pair(metric, values, after[metric])
    columns = [side[metric] for metric in before for side in (before, after)]
    means = _resampled_means(np.stack(columns, axis=1), seed)
    return {
        metric: _drop(metric, before[metric], after[metric], *means[:, 2 * place : 2 * place + 2].T)
        for place, metric in enumerate(before)
    }


def _drop(
    metric: str,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    means_before: NDArray[np.float64],
    means_after: NDArray[np.float64],
) -> Drop:
    some = means_before > 0
    losses = np.where(some, 1.0 - means_after / np.where(some, means_before, 1.0), 0.0)
    low, upper, high = np.percentile(losses, [2.5, 95.0, 97.5])
    point = 1.0 - float(after.mean()) / float(before.mean())
    return Drop(metric=metric, value=point, upper=float(upper), low=float(low), high=float(high))


def _check_pair(metric: str, before: NDArray[np.float64], after: NDArray[np.float64]) -> None:
    _check(before)
    _check(after)
    if len(before) != len(after):
        found = f"{len(before)} and {len(after)} users"
        raise MeasureError(metric, found, remedy="Evaluate both models on the same users.")
    if not before.any():
        raise MeasureError(
            metric, "the float model scores 0", remedy="Train it longer, or gate on another metric."
        )


def _check(per_user: NDArray[np.float64]) -> None:
    if not len(per_user) or np.isnan(per_user).any():
        found = "a metric is NaN" if len(per_user) else "there are no users"
        raise MeasureError("bootstrap", found, remedy="Evaluate on a log with test users.")


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the means of `values` [users, columns] over resampled users: float64 [RESAMPLES, columns]."""
    generator = np.random.default_rng(seed)
    users = len(values)
    step = max(1, _BLOCK // users)
    blocks = []
    for begin in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - begin)
        chosen = generator.integers(0, users, (rows, users))
        # How often each user was drawn says all that a mean needs.
        flat = (chosen + users * np.arange(rows)[:, None]).ravel()
        drawn = np.bincount(flat, minlength=rows * users).reshape(rows, users)
        # Not a matrix product: BLAS would lock up when another thread starts a process meanwhile.
        blocks.append(np.einsum("ru,uc->rc", drawn, values) / users)
    return np.concatenate(blocks)
