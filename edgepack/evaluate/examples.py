"""Which users to show before and after: chosen by rule, so that nobody picks the pretty ones."""

import numpy as np
from numpy.typing import NDArray

from edgepack.evaluate.ranking import Evaluation, overlap

MOST_CHANGED = 2


def chosen(before: Evaluation, after: Evaluation) -> list[tuple[str, int]]:
    """Return (why, user) of a handful of users: the most changed, the median one, the least changed.

    Users stand in the order of their lists' overlap@10; of equal ones first who has more places that differ,
    then by number. Nobody is shown twice, so few users make a shorter list.
    """
    order = _by_change(before.top10, after.top10)
    places = [("most changed", place) for place in range(min(MOST_CHANGED, len(order)))]
    places += [("median", (len(order) - 1) // 2), ("least changed", len(order) - 1)]
    found: dict[int, str] = {}
    for why, place in places:
        found.setdefault(int(order[place]), why)
    return [(why, user) for user, why in found.items()]


def _by_change(before: NDArray[np.int32], after: NDArray[np.int32]) -> NDArray[np.int64]:
    moved = (before != after).sum(axis=1)
    order = np.lexsort((np.arange(len(before)), -moved, overlap(before, after)))
    return np.asarray(order, np.int64)
