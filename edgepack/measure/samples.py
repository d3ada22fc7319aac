"""Quantiles of wall-clock samples, each with an interval that assumes no distribution."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Quantile(NamedTuple):
    """A quantile of samples and its interval, in the samples' unit; `error` says what the interval is."""

    value: float
    low: float
    high: float
    error: str


def quantile(samples: Sequence[float], per_cent: int, where: str = "one machine") -> Quantile:
    """Return the nearest-rank percentile (the median for 50) with an interval between order statistics.

    The number of samples below the true quantile is binomial, so the ranks that hold 95 % of it bound the
    quantile whatever the distribution (Hahn and Meeker, Statistical Intervals, section 5.2). Where so few
    samples cannot reach 95 %, the interval is their whole range and `error` says what it covers. `where`
    says in `error` what the samples are of.
    """
    ordered, count = sorted(samples), len(samples)
    rank = max(math.ceil(count * per_cent / 100), 1)
    at_most = _at_most(count, per_cent / 100)
    low, high = _ranks(at_most)
    covered = at_most[high - 1] - at_most[low - 1]
    several = "one sample" if count == 1 else f"{count} samples on {where}"
    return Quantile(
        value=ordered[rank - 1],
        low=ordered[low - 1],
        high=ordered[high - 1],
        error=f"{covered * 100:.0f} % interval of the {_name(per_cent)} of {several}",
    )


def _name(per_cent: int) -> str:
    return "median" if per_cent == 50 else f"{per_cent}th percentile"


def _ranks(at_most: Sequence[float]) -> tuple[int, int]:
    """Return the ranks, from 1, that leave out at most 2.5 % on either side, or as little as can be."""
    tail, count = (1 - CONFIDENCE) / 2, len(at_most)
    low = max((rank for rank in range(1, count + 1) if at_most[rank - 1] <= tail), default=1)
    high = min((rank for rank in range(1, count + 1) if 1 - at_most[rank - 1] <= tail), default=count)
    return low, high


def _at_most(count: int, share: float) -> list[float]:
    """Return the probabilities that at most 0, 1, … `count` - 1 of `count` samples lie below a quantile."""
    of_all = math.lgamma(count + 1)  # in logarithms, for thousands of samples overflow a float
    logarithms = (
        of_all
        - math.lgamma(k + 1)
        - math.lgamma(count - k + 1)
        + k * math.log(share)
        + (count - k) * math.log1p(-share)
        for k in range(count)
    )
    return list(itertools.accumulate(map(math.exp, logarithms)))
