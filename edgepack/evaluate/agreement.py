"""How far two runtimes agree on what users are shown: which items, in which order, with which scores."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.evaluate.ranking import overlap


class Lists(NamedTuple):
    """What users are shown, best first: `items` int32 [users, k], 0 = none, `scores` float32 [users, k]."""

    items: NDArray[np.int32]
    scores: NDArray[np.float32]


class Agreement(NamedTuple):
    """Means over the users; the last two look at the items that both lists of a user hold.

    `overlap` and `top_1` are shares (0..1), `kendall_tau` is Kendall's rank correlation (Biometrika 30, 1938)
    of their places, -1..1; the last two are None where no two lists share enough items.
    """

    overlap: float
    top_1: float
    kendall_tau: float | None
    largest_difference: float | None


def agreement(reference: Lists, found: Lists) -> Agreement:
    """Hold `found` against `reference`, the same users in the same order."""
    from scipy.stats import kendalltau

    taus: list[float] = []
    differences: list[float] = []
    for ours, theirs in zip(zip(*reference, strict=True), zip(*found, strict=True), strict=True):
        _, first, second = np.intersect1d(ours[0][ours[0] > 0], theirs[0], return_indices=True)
        differences += np.abs(ours[1][first].astype(np.float64) - theirs[1][second]).tolist()
        if len(first) > 1:
            taus.append(float(kendalltau(first, second).statistic))
    return Agreement(
        overlap=float(overlap(reference.items, found.items).mean()),
        top_1=float((reference.items[:, 0] == found.items[:, 0]).mean()),
        kendall_tau=float(np.mean(taus)) if taus else None,
        largest_difference=max(differences, default=None),
    )
