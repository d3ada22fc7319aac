"""SASRec (Kang & McAuley, ICDM 2018): a causal Transformer over the history, pre-norm, item table tied.

Attention is four Dense layers around a weightless core, which is the shape that TF-MOT can prune and
quantize. The serving graph computes in its last block only what the newest position needs.
"""

from typing import Any

from edgepack.models.graphs import (
    AddPositions,
    AttentionCore,
    Graphs,
    LayerNorm,
    TakeLast,
    checked,
    dropout,
    history_input,
    transfer,
)

from edgepack.keras2 import keras

HYPER: dict[str, int | float | str] = {
    "width": 64,
    "blocks": 2,
    "heads": 1,
    "ffn_width": 64,
    "dropout": 0.2,
}
TRAINING: dict[str, int | float | str] = {
    "loss": "sampled-softmax",
    "negatives": 300,
    "batch_size": 32,
    "learning_rate": 4e-3,
    "newest": 0.2,
    "epochs": 40,
}


def build(item_count: int, length: int, **hyper: int | float | str) -> Graphs:
    """Return the graphs for V = `item_count` items and histories of `length`; `hyper` overrides HYPER.

    Raises ConfigError for an unknown hyper-parameter.
    """
    chosen = checked("sasrec", HYPER, hyper)
    training = _training(item_count, length, chosen)
    serving = _serving(item_count, length, chosen)
    transfer(training, serving, table="item_embedding")
    return Graphs(training, serving, "item_embedding")


def _training(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    x = dropout(hyper["dropout"], "embedded_dropout")(_embedded(history, item_count, hyper))
    for index in range(hyper["blocks"]):
        x = _block(x, history, f"block{index}", "strict", hyper, drop=True)
    return keras.Model(history, _norm("final_norm")(x), name="sasrec_training")


def _serving(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    x = _embedded(history, item_count, hyper)
    for index in range(hyper["blocks"]):
        reach = "all" if index == hyper["blocks"] - 1 else "soft"
        x = _block(x, history, f"block{index}", reach, hyper, drop=False)
    x = keras.layers.Reshape((hyper["width"],), name="hidden")(_norm("final_norm")(x))
    scores = keras.layers.Dense(item_count + 1, use_bias=False, name="scores")(x)
    return keras.Model(history, scores, name="sasrec")


def _embedded(history: Any, item_count: int, hyper: dict[str, Any]) -> Any:
    init = keras.initializers.RandomNormal(stddev=0.05)
    table = keras.layers.Embedding(
        item_count + 1, hyper["width"], embeddings_initializer=init, name="item_embedding"
    )
    return AddPositions(name="positions")([table(history), history])


def _block(x: Any, ids: Any, name: str, reach: str, hyper: dict[str, Any], drop: bool) -> Any:
    width, rate = hyper["width"], hyper["dropout"] if drop else 0
    normed = asked = _norm(f"{name}_attention_norm")(x)
    if reach == "all":
        x = TakeLast(name=f"{name}_last")(x)
        asked = TakeLast(name=f"{name}_last_normed")(normed)
    q, k, v = (
        keras.layers.Dense(width, use_bias=False, name=f"{name}_{part}")(source)
        for part, source in (("query", asked), ("key", normed), ("value", normed))
    )
    attended = AttentionCore(hyper["heads"], reach, name=f"{name}_attention")([q, k, v, ids])
    attended = keras.layers.Dense(width, use_bias=False, name=f"{name}_output")(attended)
    x = _residual(x, attended, rate, f"{name}_attention")
    fed = _norm(f"{name}_ffn_norm")(x)
    fed = keras.layers.Dense(hyper["ffn_width"], activation="relu", name=f"{name}_ffn_in")(fed)
    fed = keras.layers.Dense(width, name=f"{name}_ffn_out")(fed)
    return _residual(x, fed, rate, f"{name}_ffn")


def _residual(x: Any, update: Any, rate: float, name: str) -> Any:
    if rate:
        update = dropout(rate, f"{name}_dropout")(update)
    return keras.layers.Add(name=f"{name}_add")([x, update])


def _norm(name: str) -> Any:
    return LayerNorm(epsilon=1e-6, name=name)
