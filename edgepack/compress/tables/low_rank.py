"""Low rank: the table in axes along which errors cost alike, and a small Dense layer that turns rows back.

E = A B with A [V + 1, r] the table in the file and B [r, d]. Scores h E' = (h B') A' need one product of
r rows of width V + 1: the last layer gets cheaper, too. B stands in the file twice, because a layer each
reads it (training makes them differ), and A once. Even with r = d the turn pays: along most axes rows vary
little for what their errors cost, so on one grid (`grid`) these hold few levels and deflate to next to
nothing. Transform coding with one step for all axes is what spends the bits best (Huang & Schultheiss, 1963).
The table of a MovieLens-1M student of one block keeps its lists to overlap@10 0.78, untrained, in 98 kB
deflated on one grid, to 0.79 in 76 kB in these axes and in 65 kB with rows' steps by their worth, too.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.tables.rewire import rewired
from edgepack.errors import ConvertError
from edgepack.keras2 import keras
from edgepack.models.graphs import Graphs, transfer

TURNS = TURN_IN, TURN_OUT = "table_turn", "hidden_turn"
_EVEN_SHARE = 0.05
"""Of the metric: an error where none was seen to cost anything is not free."""


def low_rank(graphs: Graphs, rank: int, metric: NDArray[np.float64] | None = None) -> Graphs:
    """Return `graphs` with a table of width `rank`: the same scores when it is the table's own rank.

    What fewer axes leave out is least in `metric` float64 [d, d], in which errors of rows are measured
    (`importance.table_worth`); None measures all directions alike, which gives the principal axes. Table and
    tied layer keep their names; `table_turn` comes after the look-up, `hidden_turn` before the scores.
    Raises ConvertError when no layer is tied to the table, or `rank` is not within 1..d.
    """
    if graphs.tied is None:
        raise no_tied_table(graphs)
    values = graphs.training.get_layer(graphs.table).get_weights()[0]
    if not 1 <= rank <= values.shape[1]:
        raise ConvertError(
            f"model '{graphs.serving.name}'",
            f"a table of rank {rank} was asked for",
            allowed=f"its table is {values.shape[1]} wide",
            remedy=f"Choose a rank from 1 to {values.shape[1]}.",
        )
    root, back = roots(values.shape[1], metric)
    left, sizes, right = np.linalg.svd(values.astype(np.float64) @ root, full_matrices=False)
    axes = right[:rank] @ back

    def rows(ids: Any) -> Any:
        narrow = keras.layers.Embedding(len(values), rank, name=graphs.table)(ids)
        return keras.layers.Dense(values.shape[1], use_bias=False, name=TURN_IN)(narrow)

    def turned(hidden: Any) -> Any:
        return keras.layers.Dense(rank, use_bias=False, name=TURN_OUT)(hidden)

    scoring = graphs.serving.get_layer(graphs.tied)

    def scores(hidden: Any) -> Any:
        return keras.layers.Dense.from_config(scoring.get_config())(turned(hidden))

    training = rewired(graphs.training, {graphs.table: rows}, after=turned)
    serving = rewired(graphs.serving, {graphs.table: rows, graphs.tied: scores})
    narrow_scoring = serving.get_layer(graphs.tied)
    narrow_scoring.set_weights([narrow_scoring.get_weights()[0], *scoring.get_weights()[1:]])
    training.get_layer(graphs.table).set_weights([left[:, :rank] * sizes[:rank]])
    training.get_layer(TURN_IN).set_weights([axes])
    training.get_layer(TURN_OUT).set_weights([axes.T])
    transfer(training, serving, table=graphs.table, tied=graphs.tied)
    return graphs._replace(training=training, serving=serving, fold=None)


def roots(width: int, metric: NDArray[np.float64] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return R and its inverse, float64 [d, d]: the length of d R is what an error d costs."""
    if metric is None:
        return np.eye(width), np.eye(width)
    blended = metric * (width / np.trace(metric)) + _EVEN_SHARE * np.eye(width)
    sizes, axes = np.linalg.eigh(blended)
    return (axes * np.sqrt(sizes)) @ axes.T, (axes / np.sqrt(sizes)) @ axes.T


def no_tied_table(graphs: Graphs) -> ConvertError:
    """Return the error for a model whose table and scores are not one."""
    return ConvertError(
        f"model '{graphs.serving.name}'",
        "it scores by no product with its item table",
        allowed="axes, steps by worth, codes and hashing need one table for look-ups and scores",
        remedy="Choose `table-4bit-qat` or `table-3bit-qat`, or a recipe of your own without them.",
    )
