"""A BERT4Rec-like encoder (Sun et al., CIKM 2019): a Transformer that looks both ways, taught to fill gaps.

Some items of a history are masked and predicted from those on either side (the cloze task); served, the
history moves up by one and the mask stands last, so that the L - 1 newest items are seen. Chosen for small
devices and not as in the paper: blocks as in SASRec (pre-norm, ReLU for GELU, whose int8 form is a table
look-up more), no projection before the tied table and no bias per item. Where serving has its mask is known,
so its last block computes that position alone.
"""

from typing import Any

from edgepack.models.graphs import AddPositions, Graphs, checked, dropout, history_input, transfer
from edgepack.models.sasrec import Plan, encoded

from edgepack.keras2 import keras, tf

HYPER: dict[str, int | float | str] = {
    "width": 64,
    "blocks": 2,
    "heads": 1,
    "ffn_width": 64,
    "dropout": 0.1,
}
TRAINING: dict[str, int | float | str] = {
    "loss": "sampled-softmax",
    "negatives": 300,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "warmup_steps": 200,
    "newest": 0.2,
    "epochs": 40,
}


def build(item_count: int, length: int, **hyper: int | float | str) -> Graphs:
    """Return the graphs for V = `item_count` items and histories of `length`; `hyper` overrides HYPER.

    Raises ConfigError for an unknown hyper-parameter.
    """
    chosen = checked("bert4rec", HYPER, hyper)
    training = _training(item_count, length, chosen)
    serving = _serving(item_count, length, chosen)
    transfer(training, serving, table="item_embedding")
    return Graphs(training, serving, "item_embedding")


class _Quiet(keras.layers.Layer):  # type: ignore[misc]
    """Tells TF-MOT's pruning and clustering that there is nothing to take here."""

    def get_prunable_weights(self) -> list[Any]:
        return []

    def get_clusterable_weights(self) -> list[Any]:
        return []


@keras.saving.register_keras_serializable("edgepack")
class KnownIds(_Quiet):
    """masked int32 [B, L] -> int32 [B, L], the mask (V + 1) turned into 0: it has no row in the table."""

    def __init__(self, item_count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item_count = item_count

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "item_count": self.item_count}

    def call(self, masked: Any) -> Any:
        """Return the ids that can be looked up."""
        return tf.where(masked > self.item_count, 0, masked)


@keras.saving.register_keras_serializable("edgepack")
class MaskLast(_Quiet):
    """history int32 [B, L] -> int32 [B, L], moved up by one, the mask (V + 1) behind the newest item."""

    def __init__(self, item_count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item_count = item_count

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "item_count": self.item_count}

    def call(self, history: Any) -> Any:
        """Return the ids that attention and positions go by."""
        return tf.pad(history[:, 1:], [[0, 0], [0, 1]], constant_values=self.item_count + 1)


@keras.saving.register_keras_serializable("edgepack")
class MaskVector(_Quiet):
    """[rows float32 [B, L, d], ids int32 [B, L]] -> the rows, those of masked places replaced by one vector.

    With `last` the rows are the history's: they move up by one and the vector stands behind them, which
    takes no arithmetic. A mask is an id above `item_count`.
    """

    def __init__(self, item_count: int, last: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item_count, self.last = item_count, last

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "item_count": self.item_count, "last": self.last}

    def build(self, shapes: list[Any]) -> None:
        """Create `vector` [d]."""
        init = keras.initializers.RandomNormal(stddev=0.05)
        self.vector = self.add_weight(name="vector", shape=(shapes[0][-1],), initializer=init)
        super().build(shapes)

    def get_quantizable_weights(self) -> list[str]:
        """Return what quantization-aware training rounds."""
        return ["vector"]

    def call(self, inputs: list[Any]) -> Any:
        """Return float32 [B, L, d]."""
        rows, ids = inputs
        if not self.last:
            return tf.where(ids[:, :, None] > self.item_count, self.vector, rows)
        return tf.concat([rows[:, 1:, :], tf.zeros_like(rows[:, :1, :]) + self.vector], axis=1)


def _training(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    masked = keras.Input((length,), dtype="int32", name="masked")
    rows = _table(item_count, hyper)(KnownIds(item_count, name="known")(masked))
    x = MaskVector(item_count, last=False, name="mask")([rows, masked])
    x = AddPositions(name="positions")([x, masked])
    x = dropout(hyper["dropout"], "embedded_dropout")(x)
    return keras.Model(masked, encoded(x, masked, _plan(hyper, training=True)), name="bert4rec_training")


def _serving(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    ids = MaskLast(item_count, name="mask_last")(history)
    x = MaskVector(item_count, last=True, name="mask")([_table(item_count, hyper)(history), ids])
    x = AddPositions(name="positions")([x, ids])
    x = encoded(x, ids, _plan(hyper, training=False))
    x = keras.layers.Reshape((hyper["width"],), name="hidden")(x)
    scores = keras.layers.Dense(item_count + 1, use_bias=False, name="scores")(x)
    return keras.Model(history, scores, name="bert4rec")


def _plan(hyper: dict[str, Any], training: bool) -> Plan:
    return Plan({**hyper, "norm": "layer"}, folded=False, training=training, causal=False)


def _table(item_count: int, hyper: dict[str, Any]) -> Any:
    init = keras.initializers.RandomNormal(stddev=0.05)
    return keras.layers.Embedding(
        item_count + 1, hyper["width"], embeddings_initializer=init, name="item_embedding"
    )
