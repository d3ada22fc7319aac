"""Low rank: the table in its principal axes, and a small Dense layer that turns its rows back.

E = A B with A [V + 1, r] the table in the file and B [r, d]. Scores h E' = (h B') A' need one product of
r rows of width V + 1: the last layer gets cheaper, too. B stands in the file twice, because a layer each
reads it (training makes them differ), and A once. Even with r = d the turn pays: along principal axes
most columns vary little, so on one grid (`grid`) they hold few levels and deflate to next to nothing.
Transform coding with one step for all axes is what spends the bits best (Huang & Schultheiss, 1963).
"""

from typing import Any

import numpy as np

from edgepack.compress.tables.rewire import rewired
from edgepack.errors import ConvertError
from edgepack.keras2 import keras
from edgepack.models.graphs import Graphs, transfer

TURN_IN, TURN_OUT = "table_turn", "hidden_turn"


def low_rank(graphs: Graphs, rank: int) -> Graphs:
    """Return `graphs` with a table of width `rank`: the same scores when it is the table's own rank.

    Table and tied layer keep their names; `table_turn` comes after the look-up, `hidden_turn` before the
    scores. Raises ConvertError when no layer is tied to the table, or `rank` is not within 1..d.
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
    left, sizes, right = np.linalg.svd(values.astype(np.float64), full_matrices=False)
    axes = right[:rank]

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
    return Graphs(training, serving, graphs.table, graphs.tied)


def no_tied_table(graphs: Graphs) -> ConvertError:
    """Return the error for a model that cannot have its table in principal axes."""
    return ConvertError(
        f"model '{graphs.serving.name}'",
        "it scores by no product with its item table",
        allowed="principal axes are for models that look up and score with one table",
        remedy="Choose a recipe without `rank_share`: `table-4bit-qat` or `table-3bit-qat`.",
    )
