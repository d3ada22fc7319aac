"""Mixed bits by popularity: which items can do with coarser rows is measured, not guessed.

All rows stay on one scale: a coarser row uses every second level, or every fourth. So no scale a row is
stored, no operator is added, and the int8 kernels see one table.
"""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack.compress.recipes import Band, Grid
from edgepack.compress.tables import grid
from edgepack.levels import deflated_bytes

Array = NDArray[np.float32]

_COARSEST = 8


def chosen(
    values: Array,
    popularity: NDArray[np.int64],
    shares: Sequence[float],
    base: Grid,
    *,
    loss: Callable[[Array], float],
    table_bytes: int,
) -> tuple[Band, ...]:
    """Return the bands of the table `values` float32 [V + 1, d] that lose least within `table_bytes`.

    `shares` cut the items by `popularity` int64 [V + 1], most popular first. From one step for all on, the
    band whose step can be doubled at the least `loss` (of the rounded table) a deflated byte saved is
    doubled, until the table fits or every step is eight times the finest.
    """
    bands = tuple(Band(share=share, multiple=1) for share in shares)
    now = _rated(values, popularity, base, bands, loss)
    while now[1] > table_bytes:
        tries = {tried: _rated(values, popularity, base, tried, loss) for tried in _coarser(bands)}
        smaller = {tried: rated for tried, rated in tries.items() if rated[1] < now[1]}
        if not smaller:
            return bands
        bands = min(smaller, key=lambda tried: (smaller[tried][0] - now[0]) / (now[1] - smaller[tried][1]))
        now = smaller[bands]
    return bands


def _coarser(bands: tuple[Band, ...]) -> list[tuple[Band, ...]]:
    return [
        (*bands[:i], msgspec.structs.replace(band, multiple=2 * band.multiple), *bands[i + 1 :])
        for i, band in enumerate(bands)
        if band.multiple < _COARSEST
    ]


def _rated(
    values: Array,
    popularity: NDArray[np.int64],
    base: Grid,
    bands: tuple[Band, ...],
    loss: Callable[[Array], float],
) -> tuple[float, int]:
    rule = grid.rule_of(values, base, grid.row_multiples(popularity, bands))
    counts = np.rint(values / rule.steps).clip(-rule.levels, rule.levels)
    stored = np.rint(counts * rule.steps / rule.steps.min()).astype(np.int8)
    return loss((counts * rule.steps).astype(np.float32)), deflated_bytes(stored)
