"""Hashing: items share the rows of a small table, and a number of their own tells them apart.

Row i is row i mod m of the table times item i's scale (MEmCom: Pansare et al., MLSys 2022). Items are
numbered by popularity, so that an item shares its row with much rarer ones alone. Rows and scales begin at
the best that such a table can be for the trained one, and are trained on.

Scores are a product with the small table, laid side by side as often as the catalogue needs and multiplied by
the scales: stock operators, and fewer multiplications than the whole table takes.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.recipes import Hashed
from edgepack.compress.tables.current import current
from edgepack.compress.tables.low_rank import no_tied_table, roots
from edgepack.compress.tables.no_numbers import NoNumbers
from edgepack.compress.tables.rewire import rewired
from edgepack.keras2 import keras, tf
from edgepack.models.graphs import Graphs, transfer

SCALES = "item_scales"
_LEAST = 1e-12


class Shared(NamedTuple):
    """`rows` float32 [m, d] and `scales` float32 [V + 1, 1]: item i has row i mod m times its scale."""

    rows: NDArray[np.float32]
    scales: NDArray[np.float32]


def hashed(
    graphs: Graphs,
    settings: Hashed,
    popularity: NDArray[np.int64] | None = None,
    metric: NDArray[np.float64] | None = None,
) -> Graphs:
    """Return `graphs` with shared rows and a scale an item in the place of the item table's rows.

    Arguments as of `codes.coded`. Table and tied layer keep their names and hold the shared rows; the scales
    are a table of width 1, `item_scales`. Raises ConvertError when no layer is tied to the table.
    """
    if graphs.tied is None:
        raise no_tied_table(graphs)
    table = graphs.training.get_layer(graphs.table).get_weights()[0]
    items, width = table.shape
    count = max(1, round(settings.share * items))
    if popularity is None:
        made = Shared(np.zeros((count, width), np.float32), np.zeros((items, 1), np.float32))
    else:
        made = fit(table, count, popularity, metric)

    def rows(ids: Any, scales: Any) -> Any:
        shared = keras.layers.Embedding(count, width, name=graphs.table)
        return keras.layers.Multiply(name="scaled_rows")(
            [shared(HashIds(count, name="hashed_ids")(ids)), scales(ids)]
        )

    scoring = graphs.serving.get_layer(graphs.tied).get_config()

    def scores(hidden: Any, scales: Any) -> Any:
        found = keras.layers.Dense.from_config({**scoring, "units": count})(hidden)
        return scales(SpreadScores(items, name="spread_scores")(found))

    trained, served = (ItemScales(items, 1, name=SCALES) for _ in range(2))
    training = rewired(graphs.training, {graphs.table: partial(rows, scales=trained)})
    serving = rewired(
        graphs.serving,
        {graphs.table: partial(rows, scales=served), graphs.tied: partial(scores, scales=served)},
    )
    training.get_layer(graphs.table).set_weights([made.rows])
    training.get_layer(SCALES).set_weights([made.scales])
    transfer(training, serving, table=graphs.table, tied=graphs.tied)
    return graphs._replace(training=training, serving=serving, rows=decoded, fold=None)


def decoded(model: Any, rows: Any) -> Any:
    """Return the items' rows float32 [V + 1, d]: shared `rows` float32 [m, d] times the scales of `model`."""
    scales = tf.convert_to_tensor(current(model, SCALES)())
    return _repeated(rows, scales.shape[0], axis=0) * scales


def fit(
    table: NDArray[np.float32],
    count: int,
    popularity: NDArray[np.int64],
    metric: NDArray[np.float64] | None = None,
) -> Shared:
    """Return `count` shared rows and scales whose products are next to `table` float32 [V + 1, d].

    Those of one row are the best of rank 1 (Eckart & Young, 1936), an item's error counting with its
    popularity, int64 [V + 1], and measured in `metric` float64 [d, d]. Row 0, the padding, counts as the most
    popular.
    """
    root, back = roots(table.shape[1], metric)
    turned = table.astype(np.float64) @ root
    weight = np.sqrt(np.append(popularity.max(), popularity[1:]) + 1.0)
    short = -len(table) % count
    groups = np.pad(turned, ((0, short), (0, 0))).reshape(-1, count, table.shape[1]).transpose(1, 0, 2)
    weights = np.pad(weight, (0, short)).reshape(-1, count).T[:, :, None]
    axes = np.linalg.svd(groups * weights, full_matrices=False)[2][:, 0]
    scales = np.einsum("mkd,md->mk", groups, axes)
    # Scales about 1 share one step of 8 bits well; the most popular item's is above 0.
    size = np.sqrt((scales**2).sum(axis=1) / np.maximum((scales != 0).sum(axis=1), 1)) + _LEAST
    size *= np.where(scales[:, 0] < 0, -1, 1)
    each = (scales / size[:, None]).T.reshape(-1, 1)[: len(table)]
    return Shared(np.asarray((axes * size[:, None]) @ back, np.float32), np.asarray(each, np.float32))


def _repeated(values: Any, count: int, axis: int) -> Any:
    """Return `values` again and again along `axis` until there are `count` of them."""
    times = -(-count // values.shape[axis])
    whole = tf.concat([values] * times, axis=axis)
    return whole[:count] if axis == 0 else whole[:, :count]


@keras.saving.register_keras_serializable("edgepack")
class ItemScales(keras.layers.Embedding):  # type: ignore[misc]
    """The items' scales [V + 1, 1], looked up or multiplied by.

    One layer for both, so that files store them once. ids int32 [B, L] -> scales float32 [B, L, 1]; scores
    float32 [B, V + 1] -> each times its item's scale.
    """

    def call(self, inputs: Any) -> Any:
        """Return scales of ids, or scaled scores."""
        if inputs.dtype.is_integer:
            return super().call(inputs)
        # The scores change their shape and not the scales, which a file then holds in one shape, once.
        scaled = tf.reshape(inputs, (-1, self.input_dim, 1)) * self.embeddings
        return tf.reshape(scaled, (-1, self.input_dim))

    def compute_output_shape(self, shape: Any) -> Any:
        """Return the shape of scales for that of ids, and of scores for that of scores."""
        return tf.TensorShape(shape if shape[-1] == self.input_dim else (*shape, 1))

    def get_quantizable_weights(self) -> list[str]:
        """Return what is rounded."""
        return ["embeddings"]


@keras.saving.register_keras_serializable("edgepack")
class HashIds(NoNumbers, keras.layers.Layer):  # type: ignore[misc]
    """ids int32 [B, L] -> ids mod `rows`, int32 [B, L]."""

    def __init__(self, rows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "rows": self.rows}

    def call(self, ids: Any) -> Any:
        """Return the rows that the items share."""
        return tf.math.floormod(ids, self.rows)


@keras.saving.register_keras_serializable("edgepack")
class SpreadScores(NoNumbers, keras.layers.Layer):  # type: ignore[misc]
    """float32 [B, m], what each shared row scores, -> float32 [B, V + 1], item i its row's score."""

    def __init__(self, items: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.items = items

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "items": self.items}

    def call(self, found: Any) -> Any:
        """Return the scores side by side."""
        return _repeated(found, self.items, axis=1)
