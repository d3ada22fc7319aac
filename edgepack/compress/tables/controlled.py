"""What accuracy control decides between: a grid for each layer, a step for each band of the table's rows.

A band's step is a multiple of the finest one, so that all rows stay on one scale (`grid`); a layer gives up
levels. Both end in the download alone: the kernels that run are the int8 ones whatever is chosen.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack.compress.recipes import Band, Control, Grid, Tables
from edgepack.compress.sensitivity import Weights
from edgepack.compress.tables import formats, grid
from edgepack.control import Unit
from edgepack.levels import deflated_bytes
from edgepack.models.graphs import Graphs

MULTIPLES = (32, 16, 8, 4, 2, 1)
LEVELS = (1, 3, 7, 15, 31, 127)


class Choices:
    """The units of a model, what each weighs on every rung, and its weights under any assignment of rungs.

    `graphs` hold the trained weights, `popularity` int64 [V + 1] counts the training events of each item.
    Bytes are those of a unit's levels alone, deflated.
    """

    def __init__(
        self, graphs: Graphs, settings: Tables, control: Control, popularity: NDArray[np.int64]
    ) -> None:
        self._graphs, self._settings, self._control = graphs, settings, control
        self._popularity = popularity
        self._plain = _matrices(graphs)
        tied = f"{graphs.tied}/kernel"
        self._layers = [n for n in self._plain if n not in (tied, f"{graphs.table}/embeddings")]
        self._bands = [f"{graphs.table}: {told}" for told in _told(control.shares)] if graphs.table else []
        self._finest = self._finest_grid()
        self.units = (*self._band_units(), *(self._layer_unit(name) for name in self._layers))

    def settled(self, rungs: dict[str, int]) -> Tables:
        """Return the recipe's step with the grids that `rungs` stand for, and no control left to be done."""
        shares = self._control.shares
        bands = tuple(
            Band(share=share, multiple=MULTIPLES[rungs[name]])
            for share, name in zip(shares, self._bands, strict=False)
        )
        layers = {name.partition("/")[0]: Grid(levels=LEVELS[rungs[name]]) for name in self._layers}
        return msgspec.structs.replace(
            self._settings, table=self._finest, bands=bands, by_worth=False, layers=layers, control=None
        )

    def precision(self, name: str, rung: int) -> str:
        """Return in words which values a unit may take on `rung`."""
        if name in self._bands:
            return f"{MULTIPLES[rung]} x the finest step"
        return f"{2 * LEVELS[rung] + 1} values"

    def weights(self, rungs: dict[str, int]) -> Weights:
        """Return the serving graph's weights, rounded: "layer/variable" -> float32 of the same shape."""
        settings = self.settled(rungs)
        found = {n: _rounded(self._plain[n], settings.layers[n.partition("/")[0]]) for n in self._layers}
        table = f"{self._graphs.table}/embeddings"
        if table in self._plain:
            found[table] = self._table(settings)
        if self._graphs.tied is not None:
            found[f"{self._graphs.tied}/kernel"] = found[table].T
        return found

    def _finest_grid(self) -> Grid | None:
        """Return the table's grid with its step written down: it must not follow the bands that are tried."""
        if not self._graphs.table:
            return None
        values, base = self._plain[f"{self._graphs.table}/embeddings"], self._settings.table or Grid()
        step = grid.rule_of(values, base).steps.item()
        return msgspec.structs.replace(base, step=step / float(values.std()))

    def _table(self, settings: Tables) -> NDArray[np.float32]:
        values = self._plain[f"{self._graphs.table}/embeddings"]
        multiples = grid.row_multiples(self._popularity, settings.bands) if settings.bands else None
        return _on_rule(values, grid.rule_of(values, settings.table or Grid(), multiples))

    def _band_units(self) -> list[Unit]:
        if not self._bands:
            return []
        values = self._plain[f"{self._graphs.table}/embeddings"]
        step = grid.rule_of(values, self._finest or Grid()).steps.item()
        numbers = tuple(Band(share=s, multiple=i) for i, s in enumerate(self._control.shares))
        band_of = grid.row_multiples(self._popularity, numbers)
        return [
            Unit(
                name=name,
                bytes_by_rung=tuple(
                    deflated_bytes(np.rint(values[band_of == place] / (step * multiple)).astype(np.int8))
                    for multiple in MULTIPLES
                ),
            )
            for place, name in enumerate(self._bands)
        ]

    def _layer_unit(self, name: str) -> Unit:
        return Unit(name=name, bytes_by_rung=tuple(_bytes(self._plain[name], levels) for levels in LEVELS))


def _matrices(graphs: Graphs) -> Weights:
    """Return the serving graph's weights that a grid may round, by "layer/variable"."""
    return {
        f"{layer.name}/{name}": getattr(layer, name).numpy()
        for layer in graphs.serving.layers
        if layer.weights
        for name in formats.matrices(layer)
    }


def _told(shares: tuple[float, ...]) -> list[str]:
    """Return each band in words, by popularity: `0 to 10 % of items`, `10 to 30 % of items`, …"""
    ends = [100 * sum(shares[: place + 1]) for place in range(len(shares))]
    return [
        f"{begin:.6g} to {end:.6g} % of items" for begin, end in zip([0.0, *ends[:-1]], ends, strict=True)
    ]


def _rounded(values: NDArray[np.float32], to: Grid) -> NDArray[np.float32]:
    return _on_rule(values, grid.rule_of(values, to))


def _on_rule(values: NDArray[np.float32], rule: grid.Rule) -> NDArray[np.float32]:
    counted = np.rint(values / rule.steps).clip(-rule.levels, rule.levels)
    return np.asarray(counted * rule.steps, np.float32)


def _bytes(values: NDArray[np.float32], levels: int) -> int:
    rule = grid.rule_of(values, Grid(levels=levels))
    return deflated_bytes(np.rint(values / rule.steps).clip(-levels, levels).astype(np.int8))
