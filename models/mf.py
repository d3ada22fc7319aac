"""Matrix factorization with the user represented by their history (FISM, Kabbur et al., KDD 2013).

theta_u = W (sum of the history's item vectors / n^alpha) + b, and the chance that u takes item i is
sigmoid(theta_u . phi_i). No user table exists, and b is the prior that an empty history gets.

The serving graph gives the logits theta_u . phi_i. The sigmoid never changes a ranking, but in 8 bits
everything near 1 would tie: a caller who wants probabilities applies it to the float32 scores.
"""

from typing import Any

from edgepack.models.graphs import Graphs, HistoryPool, checked, dropout, history_input, transfer

from edgepack.keras2 import keras

HYPER: dict[str, int | float | str] = {"width": 64, "alpha": 0.5, "dropout": 0.2}
TRAINING: dict[str, int | float | str] = {
    "loss": "sampled-softmax",
    "negatives": 300,
    "batch_size": 64,
    "learning_rate": 3e-3,
}


def build(item_count: int, length: int, **hyper: int | float | str) -> Graphs:
    """Return the graphs for V = `item_count` items and histories of `length`; `hyper` overrides HYPER.

    Raises ConfigError for an unknown hyper-parameter.
    """
    chosen: dict[str, Any] = checked("mf", HYPER, hyper)
    training = _training(item_count, length, chosen)
    serving = _serving(item_count, length, chosen)
    transfer(training, serving, table="item_embedding")
    return Graphs(training, serving, "item_embedding")


def _training(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    rows = dropout(hyper["dropout"], "embedded_dropout")(_table(item_count, hyper)(history))
    pooled = HistoryPool(hyper["alpha"], True, name="pool")([rows, history])
    return keras.Model(history, _user(hyper)(pooled), name="mf_training")


def _serving(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    rows = _table(item_count, hyper)(history)
    pooled = HistoryPool(hyper["alpha"], False, name="pool")([rows, history])
    scores = keras.layers.Dense(item_count + 1, use_bias=False, name="scores")(_user(hyper)(pooled))
    return keras.Model(history, scores, name="mf")


def _table(item_count: int, hyper: dict[str, Any]) -> Any:
    init = keras.initializers.RandomNormal(stddev=0.05)
    return keras.layers.Embedding(
        item_count + 1, hyper["width"], embeddings_initializer=init, name="item_embedding"
    )


def _user(hyper: dict[str, Any]) -> Any:
    return keras.layers.Dense(hyper["width"], name="user")
