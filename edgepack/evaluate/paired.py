"""Intervals: bootstrap over users, float model and candidate on the same resampled users.

Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals.
"""

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
    _check(float_per_user)
    _check(candidate_per_user)
    if len(float_per_user) != len(candidate_per_user):
        found = f"{len(float_per_user)} and {len(candidate_per_user)} users"
        raise MeasureError(metric, found, remedy="Evaluate both models on the same users.")
    if not float_per_user.any():
        raise MeasureError(
            metric, "the float model scores 0", remedy="Train it longer, or gate on another metric."
        )
    both = np.stack([float_per_user, candidate_per_user], axis=1)
    before, after = _resampled_means(both, seed).T
    losses = np.where(before > 0, 1.0 - after / np.where(before > 0, before, 1.0), 0.0)
    low, upper, high = np.percentile(losses, [2.5, 95.0, 97.5])
    point = 1.0 - float(candidate_per_user.mean()) / float(float_per_user.mean())
    return Drop(metric=metric, value=point, upper=float(upper), low=float(low), high=float(high))


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
        chosen = generator.integers(0, users, (min(step, RESAMPLES - begin), users))
        blocks.append(np.stack([column[chosen].mean(axis=1) for column in values.T], axis=1))
    return np.concatenate(blocks)
