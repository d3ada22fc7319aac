"""NeuMF (He et al., WWW 2017): a GMF tower and an MLP tower, joined before the last layer.

The user is their pooled history in each tower's table, so no user table exists. The MLP's first layer
is split into W_u u + W_i e, and u is then encoded once, not once an item. Serving runs both towers over
the whole catalogue: about V x (2 width x mlp_in + ...) multiplications, a few million at 3,400 items
and past 100 million at 70,000, where SASRec or MF need one matrix-vector product.
"""

from typing import Any

from edgepack.models.graphs import (
    Graphs,
    HistoryPool,
    JoinIds,
    SliceRows,
    WholeCatalogue,
    checked,
    history_input,
    transfer,
)

from edgepack.keras2 import keras

HYPER: dict[str, int | float | str] = {"width": 32, "mlp_in": 32, "mlp_out": 16, "alpha": 0.5}
TRAINING: dict[str, int | float | str] = {
    "loss": "bce",
    "negatives": 63,
    "batch_size": 256,
    "learning_rate": 2e-3,
}


def build(item_count: int, length: int, **hyper: int | float | str) -> Graphs:
    """Return the graphs for V = `item_count` items and histories of `length`; `hyper` overrides HYPER.

    Raises ConfigError for an unknown hyper-parameter.
    """
    chosen: dict[str, Any] = checked("neumf", HYPER, hyper)
    history = history_input(length)
    candidates = keras.Input((None,), dtype="int32", name="candidates")
    logits = _logits(history, candidates, item_count, chosen)
    training = keras.Model([history, candidates], logits, name="neumf_training")

    history = history_input(length)
    items = WholeCatalogue(item_count, name="catalogue")(history)
    serving = keras.Model(history, _logits(history, items, item_count, chosen), name="neumf")
    transfer(training, serving, table="gmf_embedding", tied=None)
    return Graphs(training, serving, "gmf_embedding", None)


def _logits(history: Any, items: Any, item_count: int, hyper: dict[str, Any]) -> Any:
    """Score `items` int32 [B, C] against `history` int32 [B, L] -> float32 [B, C]."""
    gmf_user, gmf_item = _tower("gmf", history, items, item_count, hyper)
    gmf_user = keras.layers.Dense(hyper["width"], name="gmf_user")(gmf_user)
    gmf = keras.layers.Multiply(name="gmf")([gmf_user, gmf_item])

    mlp_user, mlp_item = _tower("mlp", history, items, item_count, hyper)
    mlp_user = keras.layers.Dense(hyper["mlp_in"], name="mlp_user")(mlp_user)
    mlp_item = keras.layers.Dense(hyper["mlp_in"], use_bias=False, name="mlp_item")(mlp_item)
    mlp = keras.layers.Add(name="mlp_first")([mlp_user, mlp_item])
    mlp = keras.layers.Activation("relu", name="mlp_first_relu")(mlp)
    mlp = keras.layers.Dense(hyper["mlp_out"], activation="relu", name="mlp_second")(mlp)

    joined = keras.layers.Concatenate(name="towers")([gmf, mlp])
    logit = keras.layers.Dense(1, use_bias=False, name="logit")(joined)
    return keras.layers.Reshape((-1,), name="scores")(logit)


def _tower(name: str, history: Any, items: Any, item_count: int, hyper: dict[str, Any]) -> tuple[Any, Any]:
    """Return the pooled history [B, 1, width] and the items' rows [B, C, width] of one tower's table."""
    width = hyper["width"]
    init = keras.initializers.RandomNormal(stddev=0.05)
    table = keras.layers.Embedding(
        item_count + 1, width, embeddings_initializer=init, name=f"{name}_embedding"
    )
    rows = table(JoinIds(name=f"{name}_ids")([history, items]))
    length = history.shape[1]
    taken = SliceRows(0, length, name=f"{name}_history")(rows)
    pooled = HistoryPool(hyper["alpha"], False, name=f"{name}_pool")([taken, history])
    pooled = keras.layers.Reshape((1, width), name=f"{name}_pooled")(pooled)
    return pooled, SliceRows(length, None, name=f"{name}_items")(rows)
