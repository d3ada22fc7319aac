"""GRU4Rec (Hidasi et al., ICLR 2016): one GRU over the history, item table tied.

What the inputs give to the gates is one Dense layer over all positions; only the product with the state
is left to the steps, which are unrolled, since a loop of unknown length fits no static file. The gates are
those of cuDNN and Keras (the reset gate after the product), so that a step needs one matrix product. Trained
with softmax over many items, not with the paper's pairwise losses (Klenitskiy & Vasilev, RecSys 2023).
"""

from typing import Any

from edgepack.models.graphs import Graphs, checked, dropout, history_input, transfer

from edgepack.keras2 import keras, tf

HYPER: dict[str, int | float | str] = {"width": 64, "units": 64, "dropout": 0.2}
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
    chosen: dict[str, Any] = checked("gru4rec", HYPER, hyper)
    training = _training(item_count, length, chosen)
    serving = _serving(item_count, length, chosen)
    transfer(training, serving, table="item_embedding")
    return Graphs(training, serving, "item_embedding")


@keras.saving.register_keras_serializable("edgepack")
class GatedRecurrence(keras.layers.Layer):  # type: ignore[misc]
    """[gate inputs float32 [B, L, 3 u], ids int32 [B, L]] -> states of a GRU of u units.

    `every_step` gives all of them ([B, L, u], for training), else the last one ([B, u]). Padding leaves the
    state alone, and the first state is learnt: an empty history has a prior. `int8_state` rounds states to
    steps of 1/128, those of an int8 file, so that quantization-aware training can get used to them.
    """

    def __init__(self, units: int, every_step: bool, int8_state: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.every_step, self.int8_state = units, every_step, int8_state

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        own = {"units": self.units, "every_step": self.every_step, "int8_state": self.int8_state}
        return {**super().get_config(), **own}

    def build(self, shapes: list[Any]) -> None:
        """Create `kernel` [u, 3 u] (reset, update, candidate) and `initial` [u]."""
        init = keras.initializers.Orthogonal()
        self.kernel = self.add_weight(name="kernel", shape=(self.units, 3 * self.units), initializer=init)
        self.initial = self.add_weight(name="initial", shape=(self.units,), initializer="zeros")
        super().build(shapes)

    def get_prunable_weights(self) -> list[Any]:
        """Return what TF-MOT may prune."""
        return [self.kernel]

    def get_clusterable_weights(self) -> list[tuple[str, Any]]:
        """Return what TF-MOT may cluster."""
        return [("kernel", self.kernel)]

    def get_quantizable_weights(self) -> list[str]:
        """Return what quantization-aware training rounds."""
        return ["kernel"]

    def call(self, inputs: list[Any]) -> Any:
        """Return float32 [B, L, u], or [B, u]."""
        gates, ids = inputs
        real = tf.expand_dims(tf.cast(tf.not_equal(ids, 0), gates.dtype), 2)
        per_step = [tf.unstack(part, axis=1) for part in (*tf.split(gates, 3, axis=2), real)]
        state = self._rounded(tf.zeros_like(gates[:, 0, : self.units]) + self.initial)
        states = []
        for step in zip(*per_step, strict=True):
            state = self._next(state, *step)
            states.append(state)
        return tf.stack(states, axis=1) if self.every_step else state

    def _next(self, state: Any, reset: Any, update: Any, candidate: Any, real: Any) -> Any:
        to_reset, to_update, to_candidate = tf.split(tf.matmul(state, self.kernel), 3, axis=1)
        new = tf.tanh(candidate + tf.sigmoid(reset + to_reset) * to_candidate)
        return self._rounded(state + tf.sigmoid(update + to_update) * real * (new - state))

    def _rounded(self, state: Any) -> Any:
        if not self.int8_state:
            return state
        return tf.quantization.fake_quant_with_min_max_args(state, -1.0, 127 / 128)


def _training(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    x = dropout(hyper["dropout"], "embedded_dropout")(_embedded(history, item_count, hyper))
    states = _states(x, history, hyper, every_step=True)
    states = dropout(hyper["dropout"], "state_dropout")(states)
    return keras.Model(history, _output(hyper)(states), name="gru4rec_training")


def _serving(item_count: int, length: int, hyper: dict[str, Any]) -> Any:
    history = history_input(length)
    state = _states(_embedded(history, item_count, hyper), history, hyper, every_step=False)
    scores = keras.layers.Dense(item_count + 1, use_bias=False, name="scores")(_output(hyper)(state))
    return keras.Model(history, scores, name="gru4rec")


def _embedded(history: Any, item_count: int, hyper: dict[str, Any]) -> Any:
    init = keras.initializers.RandomNormal(stddev=0.05)
    table = keras.layers.Embedding(
        item_count + 1, hyper["width"], embeddings_initializer=init, name="item_embedding"
    )
    return table(history)


def _states(x: Any, history: Any, hyper: dict[str, Any], *, every_step: bool) -> Any:
    gates = keras.layers.Dense(3 * hyper["units"], name="gates")(x)
    return GatedRecurrence(hyper["units"], every_step, name="recurrence")([gates, history])


def _output(hyper: dict[str, Any]) -> Any:
    return keras.layers.Dense(hyper["width"], name="output")
