"""Calibrated ranges: each method against a search over the values themselves."""

import numpy as np
import pytest

from edgepack import ranges

RNG = np.random.default_rng(4)
BODY = RNG.normal(0, 1, 20_000).astype(np.float32)
SAMPLES = {
    "a normal distribution": BODY,
    "one value far away": np.append(BODY, np.float32(60)),
    "after a ReLU": np.maximum(BODY, 0),
    "long tails": RNG.standard_t(3, 20_000).astype(np.float32),
    "below zero": -np.abs(BODY) - 1,
}


def found(values, method):
    halves = [("x", part) for part in np.array_split(values, 2)]
    return ranges.chosen(lambda: iter(halves), method)["x"]


def error(values, low, high):
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    levels = np.clip(np.rint(values.astype(np.float64) / scale) + zero, 0, 255)
    return np.mean(((levels - zero) * scale - values) ** 2)


@pytest.mark.parametrize("name", SAMPLES)
def test_min_max_is_what_was_seen_and_zero(name):
    values = SAMPLES[name]
    assert found(values, "min-max") == (min(values.min(), 0), max(values.max(), 0))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_percentile_leaves_one_in_ten_thousand_out(name):
    values = SAMPLES[name]
    low, high = found(values, "percentile")
    step = np.ptp(np.append(values, 0)) / 2048
    wanted = np.quantile(values, [5e-5, 1 - 5e-5], method="inverted_cdf")
    np.testing.assert_allclose((low, high), (min(wanted[0], 0), max(wanted[1], 0)), atol=step)


@pytest.mark.parametrize("name", SAMPLES)
def test_no_range_has_a_squared_error_much_below_the_one_of_mse(name):
    values = SAMPLES[name]
    low, high = found(values, "mse")
    lows, highs = np.linspace(values.min(), 0, 41)[:-1], np.linspace(values.max(), 0, 41)[:-1]
    lows = lows if values.min() < 0 else [0.0]
    highs = highs if values.max() > 0 else [0.0]
    best = min(error(values, low, high) for low in lows for high in highs)
    assert error(values, low, high) <= 1.06 * best


def divergence(values, low, high):
    """The definition, bin by bin: the reference clipped, each level spread over its bins in use."""
    histogram = ranges.histograms(lambda: [("x", values)])["x"]
    truth, told, level_of = {}, {}, {}
    for place, count in zip(histogram.values, histogram.counts, strict=True):
        clipped = min(max(place, low), high)
        bin_number = round(clipped / histogram.step)
        truth[bin_number] = truth.get(bin_number, 0) + count
        level_of[round(place / histogram.step)] = round(clipped / ((high - low) / 255))
        if abs(place - clipped) <= histogram.step:
            level = level_of[round(place / histogram.step)]
            told[level] = told.get(level, 0) + count
    used = {b: level_of[b] for b, count in truth.items() if count}
    width = {level: list(used.values()).count(level) for level in used.values()}
    spread = {b: told.get(level, 0) / width[level] + 1e-12 for b, level in used.items()}
    return sum(
        truth[b] / len(values) * np.log(truth[b] / len(values) * sum(spread.values()) / spread[b])
        for b in used
    )


@pytest.mark.parametrize("name", ["one value far away", "after a ReLU", "long tails"])
def test_entropy_takes_the_range_that_diverges_least(name):
    values = SAMPLES[name]
    histogram = ranges.histograms(lambda: [("x", values)])["x"]
    low, high = found(values, "entropy")
    for share in (1, 0.8, 0.5, 0.3, 0.1):
        other = histogram.low * share, histogram.high * share
        assert ranges.divergence(histogram, *other) == pytest.approx(divergence(values, *other), rel=0.02)
        assert divergence(values, low, high) <= divergence(values, *other) * 1.02


def test_the_bin_at_zero_holds_the_zeros_of_a_relu():
    values = SAMPLES["after a ReLU"]
    histogram = ranges.histograms(lambda: [("x", values)])["x"]
    assert histogram.counts.sum() == len(values)
    at_zero = histogram.counts[np.flatnonzero(histogram.values == 0)]
    assert at_zero >= (values == 0).sum()


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_a_single_value_far_away_does_not_take_the_levels_of_all_others(method):
    low, high = found(SAMPLES["one value far away"], method)
    assert -5 < low < -2.5
    assert 2.5 < high < 6


@pytest.mark.parametrize("method", ["min-max", "percentile", "mse", "entropy"])
def test_a_tensor_of_zeros_has_a_range_that_holds_zero(method):
    low, high = found(np.zeros(50, np.float32), method)
    assert low <= 0 <= high < 1e-6
