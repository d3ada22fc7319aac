"""Quantiles of wall-clock samples, each with an interval that assumes no distribution."""

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


def quantile(samples: Sequence[float], per_cent: int) -> Quantile:
    """Return the nearest-rank percentile (the median for 50) with an interval between order statistics.

    The number of samples below the true quantile is binomial, so the ranks that hold 95 % of it bound the
    quantile whatever the distribution (Hahn and Meeker, Statistical Intervals, section 5.2). Where so few
    samples cannot reach 95 %, the interval is their whole range and `error` says what it covers.
    """
    ordered, share = sorted(samples), per_cent / 100
    rank = max(math.ceil(len(ordered) * share), 1)
    low, high = _ranks(len(ordered), share)
    covered = _covered(len(ordered), share, low, high)
    return Quantile(
        value=ordered[rank - 1],
        low=ordered[low - 1],
        high=ordered[high - 1],
        error=f"{covered * 100:.0f} % interval of the {_name(per_cent)} of {_several(len(ordered))}",
    )


def _name(per_cent: int) -> str:
    return "median" if per_cent == 50 else f"{per_cent}th percentile"


def _several(count: int) -> str:
    return "one sample" if count == 1 else f"{count} samples on one machine"


def _ranks(count: int, share: float) -> tuple[int, int]:
    """Return the ranks, 1 to `count`, that leave out at most 2.5 % on either side, or as little as can be."""
    tail = (1 - CONFIDENCE) / 2
    low = max((rank for rank in range(1, count + 1) if _below(count, share, rank - 1) <= tail), default=1)
    high = min((r for r in range(1, count + 1) if 1 - _below(count, share, r - 1) <= tail), default=count)
    return low, high


def _covered(count: int, share: float, low: int, high: int) -> float:
    return _below(count, share, high - 1) - _below(count, share, low - 1)


def _below(count: int, share: float, most: int) -> float:
    """Return the probability that at most `most` of `count` samples lie below the quantile of `share`."""
    terms = (math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(most + 1))
    return math.fsum(terms)
