"""Coarse grids: weights of a few levels, stored as int8, so that a download deflates to their entropy.

A stock int8 kernel runs 15 levels, or 3, as it runs 255: nothing is unpacked on the device, and the file
in the download has the bits of the levels and not of the bytes. Uniform steps with entropy coding come
within a quarter of a bit of the best there is at a given error (Gish & Pierce, 1968).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.recipes import Band, Grid
from edgepack.compress.tfmot import tfmot
from edgepack.keras2 import keras, tf
from edgepack.levels import INT8_LEVELS

Array = NDArray[np.float32]

_TIES_SEED = 31
_TRIED_STEPS = np.geomspace(0.02, 4.0, 80)  # standard deviations


class Rule(NamedTuple):
    """How one weight is rounded: to whole multiples of its rows' steps, at most `levels` of them.

    `steps` is float32 [rows, 1], or [1, 1] for one step for all; each a whole multiple of the least, or 0 for
    a row of nothing. `rate` is the price of a bit a weight in a training's loss.
    """

    steps: Array
    levels: int
    rate: float = 0.0


def rule_of(values: Array, grid: Grid, multiples: NDArray[np.int32] | None = None) -> Rule:
    """Return the rule of `values` float32 [rows, columns] under `grid`.

    `multiples` int32 [rows] (of `row_multiples`) makes the steps of some rows coarser. A grid without a
    step of its own takes the one of least squared error, found on the rows of the finest step.
    """
    finest = values if multiples is None else values[multiples == multiples[multiples > 0].min()]
    spread = float(values.std()) or 1.0
    step = spread * grid.step if grid.step else _least_squares_step(finest, grid.levels)
    steps = np.full((1, 1), step) if multiples is None else step * multiples[:, None].astype(np.float64)
    return Rule(steps.astype(np.float32), grid.levels, grid.rate)


def row_multiples(popularity: NDArray[np.int64], bands: Sequence[Band]) -> NDArray[np.int32]:
    """Return the multiple of the finest step for each table row, int32 [V + 1], by the items' popularity.

    `popularity` int64 [V + 1] counts how often an item was taken. The most popular `bands[0].share` of the
    items get its `multiple`, and so on; what the bands leave over goes with the last. The padding row goes
    with the last that has rows: were it nothing, a norm would divide by nothing, in a step of int8.
    """
    # Of items taken as often chance decides: their numbers follow all events, those held out included.
    drawn = np.random.default_rng(_TIES_SEED).permutation(len(popularity) - 1)
    order = drawn[np.argsort(-popularity[1:][drawn], kind="stable")]
    multiples = np.full(len(popularity), bands[-1].multiple, np.int32)
    begin = 0.0
    for band in bands:
        places = slice(round(begin * len(order)), round((begin + band.share) * len(order)))
        multiples[1 + order[places]] = band.multiple
        begin += band.share
    multiples[0] = next((band.multiple for band in reversed(bands) if band.multiple), 0)
    return multiples


def worth_multiples(worth: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the multiple of the finest step for each table row, int32 [V + 1]: 1, 2, 4 or 8.

    `worth` float64 [V + 1] is what a row's squared error costs. Of many independent errors the best steps
    go with its root; what is measured on some hundred histories is noisy, and its fourth root ranked better.
    """
    least = np.finfo(np.float64).tiny
    relative = np.maximum(worth, least) / max(float(np.median(worth[1:])), least)
    octaves = np.clip(np.rint(1 - np.log2(relative) / 4), 0, 3)
    return np.asarray(2**octaves, np.int32)


def bits(counted: Any) -> Any:
    """Return about how many bits a weight takes once `counted` [rows, columns], in steps, are whole numbers.

    Each column is taken for a Laplace distribution, as entropy coders see rounded weights: log2(2 e m) bits
    of mean magnitude m where m is large, none at 0 (as Oktay et al., ICLR 2020, train with a model of the
    coder's rate).
    """
    means = tf.reduce_mean(tf.abs(counted), axis=0)
    return tf.reduce_mean(tf.math.log1p(2 * math.e * means)) / math.log(2)


class GridQuantizer(tfmot.quantization.keras.quantizers.Quantizer):  # type: ignore[misc]
    """TF-MOT's part of a Rule: rounds on the way forward, and lets gradients pass straight through.

    A weight beyond the last level gets no gradient that would take it further.
    """

    def __init__(self, rows: int, levels: int) -> None:
        self.rows, self.levels = rows, levels

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the quantizer."""
        return {"rows": self.rows, "levels": self.levels}

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Create `steps` [rows, 1]: a variable, so that a checkpoint keeps them."""
        ones = keras.initializers.Ones()
        return {"steps": layer.add_weight(f"{name}_steps", (self.rows, 1), initializer=ones, trainable=False)}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Return `inputs` rounded to their grid."""
        return on_grid(inputs, weights["steps"], self.levels)


def on_grid(values: Any, steps: Any, levels: int) -> Any:
    """Return `values` [rows, columns] rounded to multiples of `steps`; a gradient passes straight through."""
    counted = tf.clip_by_value(in_steps(values, steps), -float(levels), float(levels))
    return tf.grad_pass_through(tf.round)(counted) * steps


def in_steps(values: Any, steps: Any) -> Any:
    """Return how many of its row's `steps` each of `values` [rows, columns] is: none where these are 0."""
    return tf.math.divide_no_nan(values, tf.broadcast_to(steps, tf.shape(values)))


def _least_squares_step(values: Array, levels: int) -> float:
    spread = float(values.std()) or 1.0
    if levels >= INT8_LEVELS:
        return float(np.abs(values).max() or 1.0) / INT8_LEVELS

    def error(step: float) -> float:
        rounded = np.rint(values / step).clip(-levels, levels) * step
        return float(((rounded - values) ** 2).sum())

    return min((spread * float(tried) for tried in _TRIED_STEPS), key=error)
