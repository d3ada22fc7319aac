"""SASRec (Kang & McAuley, ICDM 2018): a causal Transformer over the history, pre-norm, item table tied.

Attention is four Dense layers around a weightless core, which is the shape that TF-MOT can prune and
quantize. The serving graph computes in its last block only what the newest position needs. What is
compressed and shipped is the folded form (`edgepack.models.folding`), equal to the trained one in float.
"""

from typing import Any, NamedTuple

from edgepack.models import folding
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
from edgepack.models.norms import EPSILON, Centre, RmsNorm

from edgepack.errors import ConfigError
from edgepack.keras2 import keras

HYPER: dict[str, int | float | str] = {
    "width": 64,
    "blocks": 2,
    "heads": 1,
    "ffn_width": 64,
    "norm": "layer",
    "dropout": 0.2,
}
"""`ffn_width` 0 leaves the feed-forward layers out; `norm` is one of NORMS."""
NORMS = ("layer", "rms", "none")
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

    Raises ConfigError for an unknown hyper-parameter or norm.
    """
    chosen = checked("sasrec", HYPER, hyper)
    if chosen["norm"] not in NORMS:
        raise ConfigError(
            "model sasrec: norm",
            f"there is no norm '{chosen['norm']}'",
            allowed=f"allowed are {', '.join(NORMS)}",
            remedy="Choose one of them.",
        )
    textbook = _graphs(item_count, length, chosen, folded=False)
    return textbook._replace(fold=lambda trained: _folded(trained, item_count, length, chosen))


class Plan(NamedTuple):
    """What a graph is built from: hyper-parameters, folded or textbook form, for training or serving.

    A `causal` graph hides the future from each position.
    """

    hyper: dict[str, Any]
    folded: bool
    training: bool
    causal: bool = True

    def is_last(self, index: int) -> bool:
        """Say whether block `index` is the last one."""
        return index == int(self.hyper["blocks"]) - 1


def _graphs(item_count: int, length: int, hyper: dict[str, Any], *, folded: bool) -> Graphs:
    training = _training(item_count, length, Plan(hyper, folded, training=True))
    serving = _serving(item_count, length, Plan(hyper, folded, training=False))
    transfer(training, serving, table="item_embedding")
    return Graphs(training, serving, "item_embedding")


def _folded(trained: Graphs, item_count: int, length: int, hyper: dict[str, Any]) -> Graphs:
    graphs = _graphs(item_count, length, hyper, folded=True)
    source, target, centred = trained.training, graphs.training, hyper["norm"] == "layer"
    for name in ("item_embedding", "positions", "final_norm"):
        if folding.layer_of(target, name) is not None:
            folding.copy_layer(source, target, name)
    for index in range(hyper["blocks"]):
        name, heads = f"block{index}", hyper["heads"]
        shared = folding.shares_keys(heads, last=index == hyper["blocks"] - 1)
        folding.fold_attention(source, target, name, heads=heads, shared=shared, centred=centred)
        if hyper["ffn_width"]:
            folding.fold_feed_forward(source, target, name, centred=centred)
    transfer(target, graphs.serving, table=graphs.table)
    return graphs


def _training(item_count: int, length: int, plan: Plan) -> Any:
    history = history_input(length)
    x = dropout(plan.hyper["dropout"], "embedded_dropout")(_embedded(history, item_count, plan))
    return keras.Model(history, encoded(x, history, plan), name="sasrec_training")


def _serving(item_count: int, length: int, plan: Plan) -> Any:
    history = history_input(length)
    x = encoded(_embedded(history, item_count, plan), history, plan)
    x = keras.layers.Reshape((plan.hyper["width"],), name="hidden")(x)
    scores = keras.layers.Dense(item_count + 1, use_bias=False, name="scores")(x)
    return keras.Model(history, scores, name="sasrec")


def _embedded(history: Any, item_count: int, plan: Plan) -> Any:
    init = keras.initializers.RandomNormal(stddev=0.05)
    table = keras.layers.Embedding(
        item_count + 1, plan.hyper["width"], embeddings_initializer=init, name="item_embedding"
    )
    return AddPositions(name="positions")([table(history), history])


def encoded(x: Any, ids: Any, plan: Plan) -> Any:
    """Return what the blocks make of `x` float32 [B, L, d] for ids int32 [B, L].

    That is every position's vector in training, [B, L, d], and the newest one's in serving, [B, 1, d].
    """
    if plan.folded and plan.hyper["norm"] == "layer":
        x = Centre(name="centred")(x)
    for index in range(plan.hyper["blocks"]):
        x = _block(x, ids, index, plan)
    # The scores read it, whose weights are the item table's: its gamma and beta stay.
    return _norm(x, "final_norm", plan, affine=True)


def _block(x: Any, ids: Any, index: int, plan: Plan) -> Any:
    name = f"block{index}"
    normed = asked = _norm(x, f"{name}_attention_norm", plan)
    if plan.is_last(index) and not plan.training:
        x = TakeLast(name=f"{name}_last")(x)
        asked = TakeLast(name=f"{name}_last_normed")(normed)
    x = _residual(x, _attended(asked, normed, ids, index, plan), f"{name}_attention", plan)
    if not plan.hyper["ffn_width"]:
        return x
    fed = _norm(x, f"{name}_ffn_norm", plan)
    fed = keras.layers.Dense(plan.hyper["ffn_width"], activation="relu", name=f"{name}_ffn_in")(fed)
    fed = keras.layers.Dense(plan.hyper["width"], name=f"{name}_ffn_out")(fed)
    return _residual(x, fed, f"{name}_ffn", plan)


def _attended(asked: Any, normed: Any, ids: Any, index: int, plan: Plan) -> Any:
    """Return what `asked` finds in `normed`, which may be keys and values itself where it is folded."""
    name, width, heads = f"block{index}", plan.hyper["width"], plan.hyper["heads"]
    reach = "strict" if plan.training else "soft"
    if not plan.causal or (plan.is_last(index) and not plan.training):
        reach = "all"
    shared = plan.folded and folding.shares_keys(heads, plan.is_last(index))

    def dense(source: Any, part: str, units: int, bias: bool = False) -> Any:
        return keras.layers.Dense(units, use_bias=bias, name=f"{name}_{part}")(source)

    query = dense(asked, "query", heads * width if shared else width, plan.folded)
    key, value = (normed if shared else dense(normed, part, width) for part in ("key", "value"))
    core = AttentionCore(heads, reach, folded=plan.folded, name=f"{name}_attention")
    return dense(core([query, key, value, ids]), "output", width, plan.folded)


def _residual(x: Any, update: Any, name: str, plan: Plan) -> Any:
    if plan.training:
        update = dropout(plan.hyper["dropout"], f"{name}_dropout")(update)
    return keras.layers.Add(name=f"{name}_add")([x, update])


def _norm(x: Any, name: str, plan: Plan, affine: bool = False) -> Any:
    if plan.hyper["norm"] == "none":
        return x
    if plan.hyper["norm"] == "layer" and not plan.folded:
        return LayerNorm(epsilon=EPSILON, name=name)(x)
    return RmsNorm(affine or not plan.folded, name=name)(x)
