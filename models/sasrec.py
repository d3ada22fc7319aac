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
        x = block(x, history, f"block{index}", "strict", hyper, drop=True)
    return keras.Model(history, norm("final_norm")(x), name="sasrec_training")


def _serving(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    x = _embedded(history, item_count, hyper)
    for index in range(hyper["blocks"]):
        is_last = index == hyper["blocks"] - 1
        reach = "all" if is_last else "soft"
        x = block(x, history, f"block{index}", reach, hyper, drop=False, newest_only=is_last)
    x = keras.layers.Reshape((hyper["width"],), name="hidden")(norm("final_norm")(x))
    scores = keras.layers.Dense(item_count + 1, use_bias=False, name="scores")(x)
    return keras.Model(history, scores, name="sasrec")


def _embedded(history: Any, item_count: int, hyper: dict[str, Any]) -> Any:
    init = keras.initializers.RandomNormal(stddev=0.05)
    table = keras.layers.Embedding(
        item_count + 1, hyper["width"], embeddings_initializer=init, name="item_embedding"
    )
    return AddPositions(name="positions")([table(history), history])


def block(
    x: Any,
    ids: Any,
    name: str,
    reach: str,
    hyper: dict[str, Any],
    *,
    drop: bool,
    newest_only: bool = False,
) -> Any:
    """Return what a Transformer block makes of `x` float32 [B, L, d], its layers named after `name`.

    `reach` is AttentionCore's. With `newest_only` the newest position alone is computed: [B, 1, d].
    """
    width, rate = hyper["width"], hyper["dropout"] if drop else 0
    normed = asked = norm(f"{name}_attention_norm")(x)
    if newest_only:
        x = TakeLast(name=f"{name}_last")(x)
        asked = TakeLast(name=f"{name}_last_normed")(normed)
    q, k, v = (
        keras.layers.Dense(width, use_bias=False, name=f"{name}_{part}")(source)
        for part, source in (("query", asked), ("key", normed), ("value", normed))
    )
    attended = AttentionCore(hyper["heads"], reach, name=f"{name}_attention")([q, k, v, ids])
    attended = keras.layers.Dense(width, use_bias=False, name=f"{name}_output")(attended)
    x = _residual(x, attended, rate, f"{name}_attention")
    fed = norm(f"{name}_ffn_norm")(x)
    fed = keras.layers.Dense(hyper["ffn_width"], activation="relu", name=f"{name}_ffn_in")(fed)
    fed = keras.layers.Dense(width, name=f"{name}_ffn_out")(fed)
    return _residual(x, fed, rate, f"{name}_ffn")


def _residual(x: Any, update: Any, rate: float, name: str) -> Any:
    if rate:
        update = dropout(rate, f"{name}_dropout")(update)
    return keras.layers.Add(name=f"{name}_add")([x, update])


def norm(name: str) -> Any:
    """Return the LayerNorm of these blocks."""
    return LayerNorm(epsilon=1e-6, name=name)
