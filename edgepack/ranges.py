"""The range of an activation, chosen from what calibration rows gave rise to: four ways to cut its tails.

`min-max` cuts nothing. `percentile` leaves out the outermost values. `mse` takes the range whose 256 levels
have the least squared error, `entropy` the one whose levels say most of the distribution (Kullback-Leibler
divergence; Migacz, "8-bit inference with TensorRT", 2017, here with an end of its own on either side).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Method = Literal["min-max", "percentile", "mse", "entropy"]
Seen = Callable[[], Iterable[tuple[str, NDArray[np.float32]]]]
"""Gives what was seen, (tensor name, values of any shape), the same each time that it is called."""
Ranges = dict[str, tuple[float, float]]

_BINS = 2048
_LEVELS = 256
_CUT_SHARE = 5e-5  # of all values, at either end: 99.99 % stay
# An end of the range is tried at these shares of the outermost value: down to a 16th, in even factors.
_SHARES = 2.0 ** -np.linspace(0, 4, 25)
_NOTHING = 1e-12


class Histogram(NamedTuple):
    """How often a tensor took which value: `counts`[i] times about (`first` + i) * `step`.

    Zero is the middle of a bin, because it must stay exact and ReLU gives it often. `low` <= 0 and
    `high` >= 0 are the outermost values themselves.
    """

    low: float
    high: float
    step: float
    first: int
    counts: NDArray[np.int64]

    @property
    def values(self) -> NDArray[np.float64]:
        """The middles of the bins, float64 [bins]."""
        return (self.first + np.arange(len(self.counts))) * self.step


def chosen(seen: Seen, method: Method) -> Ranges:
    """Return (low, high) of each tensor by `method`; low <= 0 <= high, so that zero has a level."""
    if method == "min-max":
        return _extremes(seen)
    return {name: limits(histogram, method) for name, histogram in histograms(seen).items()}


def histograms(seen: Seen) -> dict[str, Histogram]:
    """Return the histogram of each tensor; `seen` is asked twice, first for how far the values reach."""
    found = {name: _empty(low, high) for name, (low, high) in _extremes(seen).items()}
    for name, values in seen():
        histogram = found[name]
        places = np.rint(values.ravel() / histogram.step).astype(np.int64) - histogram.first
        histogram.counts[:] += np.bincount(places, minlength=len(histogram.counts))
    return found


def limits(histogram: Histogram, method: Method) -> tuple[float, float]:
    """Return (low, high) by `method`, low <= 0 <= high."""
    return _METHODS[method](histogram)


def rounded(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return `values` as 8 bits between `low` and `high` hold them, zero exact."""
    scale = max(high - low, _NOTHING) / (_LEVELS - 1)
    zero = np.rint(-low / scale)
    levels = np.clip(np.rint(values / scale) + zero, 0, _LEVELS - 1)
    return np.asarray((levels - zero) * scale)


def _extremes(seen: Seen) -> Ranges:
    found: Ranges = {}
    for name, values in seen():
        low, high = found.get(name, (0.0, 0.0))
        found[name] = min(low, float(values.min())), max(high, float(values.max()))
    return found


def _empty(low: float, high: float) -> Histogram:
    step = max(high - low, _NOTHING) / _BINS
    first, last = round(low / step), round(high / step)
    # One bin more at either end, for what float32 rounds outwards.
    return Histogram(low, high, step, first - 1, np.zeros(last - first + 3, np.int64))


def _min_max(histogram: Histogram) -> tuple[float, float]:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram) -> tuple[float, float]:
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    low = histogram.values[np.searchsorted(below, _CUT_SHARE)]
    high = histogram.values[np.searchsorted(below, 1 - _CUT_SHARE)]
    return max(min(float(low), 0.0), histogram.low), min(max(float(high), 0.0), histogram.high)


def _least(loss: Callable[[Histogram, float, float], float]) -> Callable[[Histogram], tuple[float, float]]:
    def search(histogram: Histogram) -> tuple[float, float]:
        # `min` takes the first of equals: the widest.
        return min(_candidates(histogram), key=lambda ends: loss(histogram, *ends))

    return search


def _candidates(histogram: Histogram) -> Iterator[tuple[float, float]]:
    lows = histogram.low * _SHARES if histogram.low < 0 else [0.0]
    highs = histogram.high * _SHARES if histogram.high > 0 else [0.0]
    for low in lows:
        for high in highs:
            yield float(low), float(high)


def squared_error(histogram: Histogram, low: float, high: float) -> float:
    """Return the mean squared error of 8 bits between `low` and `high`."""
    errors = rounded(histogram.values, low, high) - histogram.values
    return float(histogram.counts @ errors**2 / histogram.counts.sum())


def divergence(histogram: Histogram, low: float, high: float) -> float:
    """Return the Kullback-Leibler divergence, in nats, of what 8 bits between `low` and `high` tell.

    The reference has what lies outside piled up in its outermost bins; each level spreads its values
    evenly over those of its bins in which there were any.
    """
    inside = np.clip(histogram.values, low, high)
    bins = np.rint(inside / histogram.step).astype(np.int64) - histogram.first
    truth = np.bincount(bins, histogram.counts, len(histogram.counts))
    told = np.where(np.abs(histogram.values - inside) <= histogram.step, histogram.counts, 0)
    levels = np.unique(rounded(inside, low, high), return_inverse=True)[1]
    taken = truth > 0
    share = np.bincount(levels, told) / np.maximum(np.bincount(levels, taken), 1)
    spread = share[levels][taken] + _NOTHING
    reference = truth[taken] / truth.sum()
    return float(reference @ np.log(reference * spread.sum() / spread))


_METHODS: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "min-max": _min_max,
    "percentile": _percentile,
    "mse": _least(squared_error),
    "entropy": _least(divergence),
}
