"""Item codes: a row of the table is the sum of one row out of each of a few small books.

Residual quantization (Chen et al., Sensors 2010) of the trained rows gives the codes, a byte each, which then
stay; the books are trained on (as RecJPQ trains its own, Petrov & Macdonald, WSDM 2024). Popular items are
told apart by all books, rare ones by the first few: what the others would add is least where an item is
least asked for, and a code of 0, which stands for nothing, deflates to about a bit.

The books are a table of their own, tied as the items' was, so that every grid and wrapper takes them as it
takes that one. In the file the look-up is two GATHERs and a SUM, and scores are a product with the books, a
GATHER for each of them and their sum: stock operators, which take a fraction of a whole int8 table's bytes
and, at some 40 instructions an item and book in LiteRT, more time than a product with it.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

from edgepack.compress.recipes import Codes
from edgepack.compress.tables.low_rank import no_tied_table, roots
from edgepack.compress.tables.no_numbers import NoNumbers
from edgepack.compress.tables.rewire import rewired
from edgepack.keras2 import keras, tf
from edgepack.models.graphs import Graphs, transfer

LOOK_UP, TOGETHER, SCORES = "item_codes", "code_rows", "code_scores"

_ROUNDS = 12
_SEED = 29
_SAMPLES_A_VALUE = 64


class Coded(NamedTuple):
    """`codes` int32 [groups, V + 1] and `books` float32 [groups * values, d]; code 0 stands for nothing."""

    codes: NDArray[np.int32]
    books: NDArray[np.float32]


def coded(
    graphs: Graphs,
    settings: Codes,
    popularity: NDArray[np.int64] | None = None,
    metric: NDArray[np.float64] | None = None,
) -> Graphs:
    """Return `graphs` with codes in the place of the item table's rows.

    Codes and books are made from the table of `graphs`: `popularity` int64 [V + 1] counts the training events
    of each item, distances are measured in `metric` float64 [d, d] (`importance.table_worth`). Without
    `popularity` only their shapes are what they will be. Table and tied layer keep their names and hold the
    books. Raises ConvertError when no layer is tied to the table.
    """
    if graphs.tied is None:
        raise no_tied_table(graphs)
    table = graphs.training.get_layer(graphs.table).get_weights()[0]
    shape = (settings.groups, len(table))
    if popularity is None:
        books = np.zeros((settings.groups * settings.values, table.shape[1]), np.float32)
        made = Coded(np.zeros(shape, np.int32), books)
    else:
        made = fit(table, settings, popularity, metric)

    def rows(ids: Any) -> Any:
        looked_up = LookUpCodes(*shape, settings.values, name=LOOK_UP)(ids)
        each = keras.layers.Embedding(*made.books.shape, name=graphs.table)(looked_up)
        return AddRows(settings.groups, name=TOGETHER)(each)

    scoring = graphs.serving.get_layer(graphs.tied).get_config()

    def scores(hidden: Any) -> Any:
        found = keras.layers.Dense.from_config({**scoring, "units": len(made.books)})(hidden)
        return AddScores(*shape, settings.values, name=SCORES)(found)

    training = rewired(graphs.training, {graphs.table: rows})
    serving = rewired(graphs.serving, {graphs.table: rows, graphs.tied: scores})
    for model, name in ((training, LOOK_UP), (serving, LOOK_UP), (serving, SCORES)):
        model.get_layer(name).set_weights(list(made.codes))
    training.get_layer(graphs.table).set_weights([made.books])
    transfer(training, serving, table=graphs.table, tied=graphs.tied)
    look_up = training.get_layer(LOOK_UP)
    return graphs._replace(
        training=training, serving=serving, rows=lambda _, books: look_up.decoded(books), fold=None
    )


def fit(
    table: NDArray[np.float32],
    settings: Codes,
    popularity: NDArray[np.int64],
    metric: NDArray[np.float64] | None = None,
) -> Coded:
    """Return codes and books whose sums are next to the rows of `table` float32 [V + 1, d].

    Each book is found by k-means on what the ones before it leave over, items drawn by the root of their
    popularity; what an item's error costs goes with its popularity. Row 0, the padding, counts as the most
    popular.
    """
    root, back = roots(table.shape[1], metric)
    rest = table.astype(np.float64) @ root
    weight = np.append(popularity.max(), popularity[1:]) + 1.0
    chance = np.sqrt(weight) / np.sqrt(weight).sum()
    draw = np.random.default_rng(_SEED)
    codes = np.zeros((settings.groups, len(table)), np.int32)
    books = np.zeros((settings.groups, settings.values, table.shape[1]))
    errors = [(rest**2).sum(axis=1)]
    for group in range(settings.groups):
        sample = draw.choice(len(rest), _SAMPLES_A_VALUE * settings.values, p=chance)
        book = _book(rest[sample], settings.values - 1)
        nearest = _nearest(rest, book)
        codes[group], books[group, 1 : 1 + len(book)] = nearest + 1, book
        rest = rest - book[nearest]
        errors.append((rest**2).sum(axis=1))
    depth = depths(np.stack(errors), weight, settings.kept_share)
    codes[np.arange(settings.groups)[:, None] >= depth] = 0
    return Coded(codes, np.asarray(books.reshape(-1, table.shape[1]) @ back, np.float32))


def depths(errors: NDArray[np.float64], weight: NDArray[np.float64], kept_share: float) -> NDArray[np.int64]:
    """Return how many of its codes each row keeps, int64 [V + 1], together the `kept_share` of all.

    `errors` float64 [groups + 1, V + 1] is how far a row is off with so many codes, `weight` float64 [V + 1]
    what that costs. A row's next code has a worth, and those worth most are kept (Shoham & Gersho, 1988).
    Every row keeps its first one: a row of nothing would make a norm divide by nothing, in a step of int8.
    """
    groups, rows = len(errors) - 1, errors.shape[1]
    # What a code brings is at most what the ones before it brought: so a cut keeps the first of each row.
    gains = np.minimum.accumulate(weight * (errors[:-1] - errors[1:]), axis=0)
    gains[0] = np.inf
    kept = max(rows, round(kept_share * groups * rows))
    chosen = np.zeros(gains.size, bool)
    chosen[np.argsort(-gains, axis=None, kind="stable")[:kept]] = True
    return np.asarray(chosen.reshape(gains.shape).sum(axis=0), np.int64)


def _book(rows: NDArray[np.float64], values: int) -> NDArray[np.float64]:
    distinct = np.unique(rows, axis=0)
    begins = distinct[np.random.default_rng(_SEED).permutation(len(distinct))[:values]]
    book, members = kmeans2(rows, begins, iter=_ROUNDS, minit="matrix", missing="warn")
    return np.asarray(book[np.unique(members)], np.float64)


def _nearest(rows: NDArray[np.float64], book: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(vq(rows, book, check_finite=False)[0], np.int64)


class _Codes(NoNumbers, keras.layers.Layer):  # type: ignore[misc]
    """Holds the codes, an int32 weight [V + 1] for each book: part of the model and never trained."""

    def __init__(self, groups: int, rows: int, values: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups, self.rows, self.values = groups, rows, values

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "groups": self.groups, "rows": self.rows, "values": self.values}

    def build(self, shape: Any) -> None:
        """Create `codes_0`, `codes_1`, …: int32 [V + 1] each."""
        self.codes = [
            self.add_weight(f"codes_{i}", (self.rows,), tf.int32, "zeros", trainable=False)
            for i in range(self.groups)
        ]
        super().build(shape)


@keras.saving.register_keras_serializable("edgepack")
class LookUpCodes(_Codes):
    """ids int32 [B, L] -> rows of the books, int32 [B, L * groups]."""

    def call(self, ids: Any) -> Any:
        """Return each item's rows side by side."""
        found = [tf.gather(codes, ids) + i * self.values for i, codes in enumerate(self.codes)]
        return tf.reshape(tf.stack(found, axis=2), (-1, ids.shape[1] * self.groups))

    def decoded(self, books: Any) -> Any:
        """Return the items' rows float32 [V + 1, d] that `books` float32 [groups * values, d] stand for."""
        parts = tf.split(books, self.groups)
        return tf.add_n([tf.gather(part, codes) for part, codes in zip(parts, self.codes, strict=True)])


@keras.saving.register_keras_serializable("edgepack")
class AddRows(NoNumbers, keras.layers.Layer):  # type: ignore[misc]
    """float32 [B, L * groups, d] -> float32 [B, L, d], the sum of each item's rows."""

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "groups": self.groups}

    def call(self, rows: Any) -> Any:
        """Return the sums."""
        steps = rows.shape[1] // self.groups
        return tf.reduce_sum(tf.reshape(rows, (-1, steps, self.groups, rows.shape[2])), axis=2)


@keras.saving.register_keras_serializable("edgepack")
class AddScores(_Codes):
    """float32 [B, groups * values], what each book's rows score, -> float32 [B, V + 1], the items' scores."""

    def call(self, found: Any) -> Any:
        """Return the sums."""
        parts = tf.split(found, self.groups, axis=1)
        each = [tf.gather(part, codes, axis=1) for part, codes in zip(parts, self.codes, strict=True)]
        # One addition after another: TFLite's sum of many has no kernel in int8.
        total = each[0]
        for scores in each[1:]:
            total = total + scores
        return total
