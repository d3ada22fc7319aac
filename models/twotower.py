"""Two towers for search (Huang et al., CIKM 2013; Yi et al., RecSys 2019): the user side reads text, too.

user = W (sum of the history's item vectors / n^alpha) + b + MLP(sum of the text's n-gram vectors / m^alpha),
and an item's score is the inner product of the user with its vector.

The history's part is FISM's (see `mf`). Text comes as hashed character n-grams, so that typing errors and
words never seen share most of their ids with known ones. A sum of logits is a product of experts: what the
text says and what the history says must both hold. Without a search it recommends, without a history it
searches, without both it gives the prior.
"""

from typing import Any

from edgepack.models.graphs import (
    Graphs,
    HistoryPool,
    checked,
    dropout,
    history_input,
    query_input,
    transfer,
)

from edgepack.errors import ConfigError
from edgepack.keras2 import keras

HYPER: dict[str, int | float | str] = {
    "width": 64,
    "alpha": 0.5,
    "query_width": 32,
    "query_hidden": 64,
    "dropout": 0.2,
}
TRAINING: dict[str, int | float | str] = {
    "loss": "sampled-softmax",
    "negatives": 300,
    "batch_size": 16,
    "learning_rate": 4e-3,
    "newest": 0.2,
}


def build(
    item_count: int,
    length: int,
    *,
    query_length: int = 0,
    query_buckets: int = 0,
    **hyper: int | float | str,
) -> Graphs:
    """Return the graphs for V = `item_count` items, histories of `length` and `query_length` n-grams.

    n-gram ids are 1..`query_buckets`; `hyper` overrides HYPER. Raises ConfigError for an unknown
    hyper-parameter, and when the model is to take no search text.
    """
    chosen: dict[str, Any] = checked("twotower", HYPER, hyper)
    if query_length < 1 or query_buckets < 1:
        raise ConfigError(
            "model twotower",
            "has no search text to read",
            allowed="model.query_length is at least 1",
            remedy="Set it (24 suits a shop's searches), or take the family mf.",
        )
    history = history_input(length)
    query = keras.Input((None, query_length), dtype="int32", name="query")
    user = _user(history, query, item_count, query_buckets, chosen, drop=True)
    training = keras.Model([history, query], user, name="twotower_training")

    history, query = history_input(length), query_input(query_length)
    user = _user(history, query, item_count, query_buckets, chosen, drop=False)
    scores = keras.layers.Dense(item_count + 1, use_bias=False, name="scores")(user)
    serving = keras.Model([history, query], scores, name="twotower")
    transfer(training, serving, table="item_embedding")
    return Graphs(training, serving, "item_embedding")


def _user(history: Any, query: Any, item_count: int, buckets: int, hyper: dict[str, Any], drop: bool) -> Any:
    """Return what both towers say: float32 [B, d], or [B, L, d] in the training graph (`drop`)."""
    rows = _table("item_embedding", item_count, hyper["width"])(history)
    if drop:
        rows = dropout(hyper["dropout"], "embedded_dropout")(rows)
    taken = HistoryPool(hyper["alpha"], drop, name="pool")([rows, history])
    taken = keras.layers.Dense(hyper["width"], name="history_tower")(taken)

    grams = _table("ngram_embedding", buckets, hyper["query_width"])(query)
    asked = HistoryPool(hyper["alpha"], False, name="query_pool")([grams, query])
    asked = keras.layers.Dense(hyper["query_hidden"], activation="relu", name="query_hidden")(asked)
    if drop:
        asked = dropout(hyper["dropout"], "query_dropout")(asked)
    asked = keras.layers.Dense(hyper["width"], name="query_tower")(asked)
    return keras.layers.Add(name="user")([taken, asked])


def _table(name: str, count: int, width: int) -> Any:
    init = keras.initializers.RandomNormal(stddev=0.05)
    return keras.layers.Embedding(count + 1, width, embeddings_initializer=init, name=name)
