"""What a recipe's `Tables` means for a model: which layers it has, and which grid each weight stands on."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.importance import TableWorth, table_worth
from edgepack.compress.qat import Rules
from edgepack.compress.recipes import Grid, Tables
from edgepack.compress.schemes import rounded_weights
from edgepack.compress.tables import grid
from edgepack.compress.tables.codes import coded
from edgepack.compress.tables.hashed import SCALES, hashed
from edgepack.compress.tables.low_rank import TURNS, low_rank, no_tied_table
from edgepack.errors import ConvertError
from edgepack.keras2 import keras
from edgepack.models.graphs import Graphs
from edgepack.rows import Rows

_FINE = {*TURNS, SCALES}


def worth_of(graphs: Graphs, settings: Tables, rows: NDArray[np.int32] | Rows) -> TableWorth | None:
    """Return what errors in the item table cost, None where `settings` does not ask; `rows` int32 [n, L].

    Raises ConvertError for a model that scores by no product with its table.
    """
    if not (settings.rank_share or settings.by_worth or settings.codes or settings.hashed):
        return None
    if graphs.tied is None:
        raise no_tied_table(graphs)
    return table_worth(graphs, rows)


def shaped(
    graphs: Graphs,
    settings: Tables,
    worth: TableWorth | None = None,
    popularity: NDArray[np.int64] | None = None,
) -> Graphs:
    """Return `graphs` with the layers that `settings` asks for, their weights made from those of `graphs`.

    Without `worth` and `popularity` only their shapes are what they will be. Raises ConvertError when the
    model cannot have them.
    """
    metric = None if worth is None else worth.metric
    if worth is not None and popularity is None:
        popularity = np.ones(len(worth.rows), np.int64)  # nobody counted: all items alike
    if settings.codes is not None:
        return coded(graphs, settings.codes, popularity, metric)
    if settings.hashed is not None:
        return hashed(graphs, settings.hashed, popularity, metric)
    if not settings.rank_share:
        return graphs
    if not 0 < settings.rank_share <= 1:
        raise ConvertError(
            "tables.rank_share",
            f"it is {settings.rank_share}",
            allowed="a share of the table's width, above 0 and at most 1",
            remedy="Correct it, or leave it out.",
        )
    if graphs.tied is None:
        raise no_tied_table(graphs)
    width = graphs.training.get_layer(graphs.table).output_dim
    return low_rank(graphs, max(1, round(settings.rank_share * width)), metric)


def rules(
    model: Any,
    settings: Tables,
    popularity: NDArray[np.int64] | None,
    worth: TableWorth | None = None,
) -> Rules:
    """Return the rule of each weight of `model` that `settings` puts on a coarse grid.

    Every Embedding takes the table's grid, everything else that is rounded the network's, but the turns of a
    table in axes and the scales of a hashed one: every row passes through them, and they stay at 8 bits. Rows
    differ by band, or by their `worth`, where a table has one row for each count of `popularity`
    int64 [V + 1].
    """
    found = {}
    for layer in model.layers:
        is_table = isinstance(layer, keras.layers.Embedding)
        usual = settings.table if is_table else settings.network
        chosen = settings.layers.get(layer.name, None if layer.name in _FINE else usual)
        names = matrices(layer) if layer.weights else None
        if chosen is None or not names:
            continue
        multiples = _multiples(layer, settings, popularity, worth) if is_table else None
        found[layer.name] = {name: _rule(layer, name, chosen, multiples) for name in names}
    return found


def matrices(layer: Any) -> tuple[str, ...]:
    """Return the names of a layer's weights that a grid may round: those of two axes and more."""
    return tuple(name for name in rounded_weights(layer) or () if len(getattr(layer, name).shape) > 1)


def _rule(layer: Any, name: str, chosen: Grid, multiples: NDArray[np.int32] | None) -> grid.Rule:
    return grid.rule_of(getattr(layer, name).numpy(), chosen, multiples)


def _multiples(
    layer: Any, settings: Tables, popularity: NDArray[np.int64] | None, worth: TableWorth | None
) -> NDArray[np.int32] | None:
    if settings.by_worth and worth is not None and layer.input_dim == len(worth.rows):
        return grid.worth_multiples(worth.rows)
    if not settings.bands or popularity is None or layer.input_dim != len(popularity):
        return None
    return grid.row_multiples(popularity, settings.bands)
