"""What a model family hands out, the small layers that families share, and how weights get across.

A family is a module with `HYPER`, `TRAINING` and `build(item_count, length, **hyper) -> Graphs`. Both
graphs are functional Keras 2 models of named layers only: no TensorFlow operation stands between two
layers, because TF-MOT can neither annotate nor wrap those.
"""

import math
import re
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from edgepack.errors import ConfigError, ConvertError
from edgepack.keras2 import keras, tf
from edgepack.rows import named

MASK_LOGIT = -16.0
"""Added to the attention logit of a padded key. e^-16 is nothing beside a real key, yet int8 logits
keep a step of about 0.1, where -1e9 would leave them a single one."""

_FORBIDDEN_LOGIT = -1e9
_WRAPPERS = re.compile(r"^(?:(?:quant|prune_low_magnitude|cluster)_)+")


class Graphs(NamedTuple):
    """The two views of one model; `transfer` carries weights from the first to the second.

    `training` of an encoder: `history` int32 [B, L] -> `hidden` float32 [B, L, d], position i seeing
    items up to i; scored by the inner product with the rows of the Embedding layer `table`
    ([V + 1, d], row 0 = padding). A search model's encoder has a second input, `query` int32 [B, P, Q], one
    for each position (P = L) or for all of them (P = 1). `training` of a pair model has a second input,
    `candidates` int32 [B, C], and gives logits float32 [B, C]. An encoder that looks both ways reads `masked`
    int32 [B, L] instead, where V + 1 stands for a masked item, and gives the `hidden` to fill each gap with.

    `serving`: `history` int32 [B, L] (and `query` int32 [B, Q]) -> `scores` float32 [B, V + 1]. `tied`
    names its Dense layer whose kernel is the transposed table; None when there is none.

    `fold` turns trained graphs into those that are compressed and shipped, which score the same in fewer
    operators (`edgepack.models.folding`); None where these are they.

    `rows` turns the training graph that is in use and the weights of its layer `table` into the items' rows,
    where these are made up of parts; None where the weights are the rows.
    """

    training: Any
    serving: Any
    table: str
    tied: str | None = "scores"
    fold: "Callable[[Graphs], Graphs] | None" = None
    rows: Callable[[Any, Any], Any] | None = None

    @property
    def pairwise(self) -> bool:
        """True when the training graph scores given candidates instead of encoding the history."""
        return "candidates" in self.training.input_names

    @property
    def cloze(self) -> bool:
        """True when the training graph fills gaps: it is taught masked items, wherever they stand."""
        return "masked" in self.training.input_names


class _Weightless:
    """Tells TF-MOT's pruning and clustering that there is nothing to take here."""

    def get_prunable_weights(self) -> list[Any]:
        return []

    def get_clusterable_weights(self) -> list[Any]:
        return []


@keras.saving.register_keras_serializable("edgepack")
class AddPositions(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """[embedded float32 [B, L, d], ids int32 [B, L]] -> embedded + positions, padding left alone.

    Padding gets no position, so that every padded place holds the same vector: an empty history then
    encodes alike in the training graph (causal) and in the serving graph (last position only).
    """

    def build(self, shapes: list[Any]) -> None:
        """Create `positions` [L, d]."""
        _, length, width = shapes[0]
        init = keras.initializers.RandomNormal(stddev=0.02)
        self.positions = self.add_weight(name="positions", shape=(length, width), initializer=init)
        super().build(shapes)

    def call(self, inputs: list[Any]) -> Any:
        """Return float32 [B, L, d]."""
        embedded, ids = inputs
        real = tf.cast(tf.not_equal(ids, 0), embedded.dtype)[:, :, None]
        return embedded + self.positions * real


@keras.saving.register_keras_serializable("edgepack")
class AttentionCore(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """[q [B, T, d], k [B, L, d], v [B, L, d], ids int32 [B, L]] -> attended values [B, T, d].

    `reach` says what a query may see beside padding: "strict" hides the future outright (training),
    "soft" by MASK_LOGIT (serving: quantized logits keep their resolution), "all" hides nothing (the
    query is the last position, or looks both ways). `int8_weights` rounds the softmax to 256 steps of
    1/256, about what an int8 file has for it, so that quantization-aware training can get used to them.
    `folded` takes queries that are scaled already and, of more than one head, keys and values of the width
    of one head, shared by all (Shazeer, "Fast Transformer Decoding", 2019).
    """

    def __init__(
        self, heads: int, reach: str, int8_weights: bool = False, folded: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.heads, self.reach, self.int8_weights, self.folded = heads, reach, int8_weights, folded

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        own = {"heads": self.heads, "reach": self.reach, "int8_weights": self.int8_weights}
        return {**super().get_config(), **own, "folded": self.folded}

    def call(self, inputs: list[Any]) -> Any:
        """Return float32 [B, T, d]."""
        query, key, value, ids = inputs
        if not self.folded:
            query = query * (1.0 / math.sqrt(query.shape[-1] // self.heads))
        if query.shape[1] == 1 and key.shape[-1] < query.shape[-1]:
            # The heads of one query over shared keys are queries of one head.
            heads = tf.reshape(query, (-1, self.heads, key.shape[-1]))
            return tf.reshape(self._attended(heads, key, value, ids), (-1, 1, query.shape[-1]))
        key, value = (self._split(x, self.heads * x.shape[-1] // query.shape[-1]) for x in (key, value))
        return self._merge(self._attended(self._split(query, self.heads), key, value, ids))

    def _attended(self, query: Any, key: Any, value: Any, ids: Any) -> Any:
        weights = tf.nn.softmax(self._masked(tf.matmul(query, key, transpose_b=True), ids))
        if self.int8_weights:
            weights = tf.quantization.fake_quant_with_min_max_args(weights, 0.0, 255 / 256)
        return tf.matmul(weights, value)

    def _masked(self, logits: Any, ids: Any) -> Any:
        padding = tf.cast(tf.equal(ids, 0), logits.dtype) * MASK_LOGIT
        padding = padding[:, None, :] if len(logits.shape) == 3 else padding[:, None, None, :]
        if self.reach == "all":
            return logits + padding
        length = ids.shape[1]
        future = 1.0 - tf.linalg.band_part(tf.ones((length, length)), -1, 0)
        if self.reach == "soft":
            return logits + tf.minimum(padding, future * MASK_LOGIT)
        return tf.where(future > 0, _FORBIDDEN_LOGIT, logits + padding)

    def _split(self, x: Any, heads: int) -> Any:
        """Return [B, T, d] as [B, heads, T, d / heads], or as it is where the layer has one head."""
        if self.heads == 1:
            return x
        steps, width = x.shape[1], x.shape[2]
        return tf.transpose(tf.reshape(x, (-1, steps, heads, width // heads)), (0, 2, 1, 3))

    def _merge(self, x: Any) -> Any:
        if self.heads == 1:
            return x
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, x.shape[2], self.heads * x.shape[3]))


@keras.saving.register_keras_serializable("edgepack")
class LayerNorm(_Weightless, keras.layers.LayerNormalization):  # type: ignore[misc]
    """LayerNormalization over the last axis, computed as (x - mean) / deviation * gamma + beta.

    Keras computes x * (gamma / deviation) + (beta - mean * (gamma / deviation)), whose int8 form costs an
    ARM core five times the instructions: SQUARED_DIFFERENCE has no vectorized kernel there.
    """

    def call(self, x: Any) -> Any:
        """Return float32 of the same shape."""
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + self.epsilon) * self.gamma + self.beta


@keras.saving.register_keras_serializable("edgepack")
class TakeLast(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """[B, L, d] -> [B, 1, d], the newest position."""

    def call(self, x: Any) -> Any:
        """Return the last step, its axis kept."""
        return x[:, -1:, :]


@keras.saving.register_keras_serializable("edgepack")
class HistoryPool(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """[embedded float32 [B, L, d], ids int32 [B, L]] -> sum of the n real rows / n^alpha.

    With one more axis in front of L ([B, P, L, d] and [B, P, L]) each of the P gets its own: [B, P, d].

    FISM's user vector (Kabbur et al., KDD 2013). `prefixes` gives it for every prefix ([B, L, d], for
    training), else for the whole history ([B, d]). n^-alpha comes from a constant table, since TFLite
    has no integer power.
    """

    def __init__(self, alpha: float, prefixes: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha, self.prefixes = alpha, prefixes

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "alpha": self.alpha, "prefixes": self.prefixes}

    def call(self, inputs: list[Any]) -> Any:
        """Return float32 [B, d], or [B, L, d] with `prefixes`."""
        embedded, ids = inputs
        shrink = tf.constant([max(n, 1) ** -self.alpha for n in range(ids.shape[-1] + 1)], tf.float32)
        real = tf.not_equal(ids, 0)
        weights = tf.cast(real, tf.float32)
        if self.prefixes:
            counts = tf.cumsum(tf.cast(real, tf.int32), axis=1)
            return tf.cumsum(embedded * weights[:, :, None], axis=1) * tf.gather(shrink, counts)[:, :, None]
        counts = tf.reduce_sum(tf.cast(real, tf.int32), axis=len(ids.shape) - 1, keepdims=True)
        weights = weights * tf.gather(shrink, counts)
        if len(ids.shape) == 3:
            return tf.reduce_sum(weights[..., None] * embedded, axis=2)
        return tf.matmul(weights[:, None, :], embedded)[:, 0, :]


@keras.saving.register_keras_serializable("edgepack")
class WholeCatalogue(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """history int32 [B, L] -> the ids 0..V, int32 [B, V + 1].

    They depend on the input in form only: were they constant, the converter would look the rows up
    itself and store every table twice.
    """

    def __init__(self, item_count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.item_count = item_count

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "item_count": self.item_count}

    def call(self, ids: Any) -> Any:
        """Return int32 [B, V + 1]."""
        return tf.range(self.item_count + 1, dtype=tf.int32)[None, :] + tf.minimum(ids[:, :1], 0)


@keras.saving.register_keras_serializable("edgepack")
class JoinIds(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """[history int32 [B, L], items int32 [B, C]] -> int32 [B, L + C].

    One look-up then serves both; two look-ups in one table make the converter store the table twice.
    """

    def call(self, inputs: list[Any]) -> Any:
        """Return the ids side by side."""
        return tf.concat(inputs, axis=1)


@keras.saving.register_keras_serializable("edgepack")
class SliceRows(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """[B, N, d] -> its rows `start` to `stop` (None: to the end)."""

    def __init__(self, start: int, stop: int | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start, self.stop = start, stop

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "start": self.start, "stop": self.stop}

    def call(self, x: Any) -> Any:
        """Return float32 [B, stop - start, d]."""
        return x[:, self.start : self.stop, :]


_STEP: dict[str, Any] = {}


def dropout_step() -> Any:
    """Return the int64 variable that StepDropout draws from; a training loop sets it before each step."""
    if "variable" not in _STEP:
        with tf.init_scope():
            _STEP["variable"] = tf.Variable(0, trainable=False, dtype=tf.int64, name="dropout_step")
    return _STEP["variable"]


@keras.saving.register_keras_serializable("edgepack")
class StepDropout(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """Dropout whose mask depends on (salt, step) alone, so that a resumed training repeats to the bit.

    It has no weights, and lives in training graphs only.
    """

    def __init__(self, rate: float, salt: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.salt = rate, salt

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "rate": self.rate, "salt": self.salt}

    def call(self, x: Any, training: Any = None) -> Any:
        """Return `x`, a share `rate` of it zeroed and the rest scaled up when training."""
        if self.rate == 0:
            return x
        return keras.backend.in_train_phase(lambda: self._dropped(x), lambda: tf.identity(x), training)

    def _dropped(self, x: Any) -> Any:
        seed = tf.stack([tf.constant(self.salt, tf.int64), dropout_step()])
        kept = tf.random.stateless_uniform(tf.shape(x), seed, alg="philox") >= self.rate
        return tf.where(kept, x * (1 / (1 - self.rate)), 0.0)


def dropout(rate: float, name: str) -> StepDropout:
    """Return a dropout layer whose random stream is told apart by its name."""
    return StepDropout(rate, zlib.crc32(name.encode()), name=name)


def history_input(length: int) -> Any:
    """Return the serving contract's input: `history` int32 [B, length]."""
    return keras.Input((length,), dtype="int32", name="history")


def query_input(length: int) -> Any:
    """Return a search model's second input: `query` int32 [B, length], hashed n-grams, 0 = padding."""
    return keras.Input((length,), dtype="int32", name="query")


def fed(model: Any, rows: Any) -> Any:
    """Return what a call of `model` takes for rows int32 [B, length] an input: its tensor, or their list."""
    tensors = {name: tf.constant(values) for name, values in named(rows).items()}
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    return [tensors[name] for name in model.input_names]


def checked(family: str, defaults: dict[str, Any], hyper: dict[str, Any]) -> dict[str, Any]:
    """Return `defaults` with `hyper` over them. Raises ConfigError for a name that is not among them."""
    for name in hyper:
        if name not in defaults:
            raise ConfigError(
                f"model {family}",
                f"{name} is not one of its hyper-parameters",
                allowed=f"known are {', '.join(sorted(defaults))}",
                remedy="Correct or delete it.",
            )
    return {**defaults, **hyper}


def bare_name(name: str) -> str:
    """Return a layer's name without the prefixes that TF-MOT's wrappers put before it."""
    return _WRAPPERS.sub("", name)


def transfer(training: Any, serving: Any, *, table: str, tied: str | None = "scores") -> None:
    """Copy the weights of `training` into `serving`, layer by layer name; either may be wrapped by TF-MOT.

    Variables match by the last part of their names, quantizer ranges included; what a wrapper of
    `serving` has alone stays as it is. The Dense layer `tied` gets the transposed Embedding `table`.
    Raises ConvertError when a layer of `serving` has weights and no namesake in `training`.
    """
    sources = {bare_name(layer.name): _variables(layer) for layer in training.layers}
    for layer in serving.layers:
        name, wanted = bare_name(layer.name), _variables(layer)
        if name == tied:
            wanted["kernel"].assign(tf.transpose(sources[table]["embeddings"]))
            continue
        found = sources.get(name, {})
        for variable, target in wanted.items():
            if variable in found:
                target.assign(found[variable])
            elif target.trainable:
                raise _no_namesake(name, variable)


def _no_namesake(layer: str, variable: str) -> ConvertError:
    return ConvertError(
        f"serving graph, layer {layer}",
        f"its weight '{variable}' has no namesake in the training graph",
        remedy="Give the layers that share weights the same name in both graphs.",
    )


def _variables(layer: Any) -> dict[str, Any]:
    return {variable.name.split("/")[-1].split(":")[0]: variable for variable in layer.weights}
