"""Weights on a coarse grid: how to see it, and what a download pays for them.

No format says that a weight lies on a grid. Whoever rounds weights to int8 looks for one, and then
stores its levels as they are.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

INT8_LEVELS = 127
"""Levels to either side of zero that int8 holds."""

_MOST_VALUES = INT8_LEVELS + 1
_SAME = 1e-5  # of the greatest value: two float32 of one level
_OFF_GRID = 1e-3  # of a step


def step_of(values: NDArray[np.float32]) -> float | None:
    """Return the step of the grid that `values` lie on with int8 levels, None when they lie on none."""
    found = np.unique(np.abs(np.append(values, 0)).astype(np.float64))
    if not 1 < len(found) <= 2 * _MOST_VALUES:
        return None
    gaps = np.diff(found)
    step = float(gaps[gaps > _SAME * found[-1]].min())
    step = float(found[-1] / round(found[-1] / step))
    levels = found / step
    is_grid = levels[-1] <= INT8_LEVELS and float(np.abs(levels - np.rint(levels)).max()) < _OFF_GRID
    return step if is_grid else None


def levels_of(values: NDArray[np.float32]) -> NDArray[np.int8] | None:
    """Return the int8 levels of `values` on their grid, None when they lie on none."""
    step = step_of(values)
    return None if step is None else np.rint(values / step).astype(np.int8)


def deflated_bytes(levels: NDArray[Any]) -> int:
    """Return what a download pays for an array: its bytes after deflate, level 9."""
    return len(zlib.compress(np.ascontiguousarray(levels).tobytes(), 9))
