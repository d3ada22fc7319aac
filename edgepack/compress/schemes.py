"""What is rounded to 8 bits in which kind of layer: a table of TF-MOT QuantizeConfigs.

TF-MOT's own 8-bit scheme does not fit recommenders: it puts a quantizer on int32 ids, knows neither
Embedding nor LayerNormalization nor any layer of our own, and where a Dense layer feeds a Concatenate it
swaps the layer's config for one that forgets its zeros. Here every layer gets its config from this table
and nothing is rearranged.
"""

from collections.abc import Mapping
from typing import Any

from edgepack.compress.tables.codes import AddScores
from edgepack.compress.tables.grid import GridQuantizer, Rule
from edgepack.compress.tables.hashed import SpreadScores
from edgepack.compress.tfmot import tfmot
from edgepack.errors import ConvertError
from edgepack.keras2 import keras, tf
from edgepack.models import graphs, norms

_quantizers = tfmot.quantization.keras.quantizers
_layers = keras.layers

# Layer class -> names of its weights that are rounded; its output is rounded too, Embedding's apart.
_ROUNDED: dict[type, tuple[str, ...]] = {
    _layers.Dense: ("kernel",),
    _layers.Embedding: ("embeddings",),
    graphs.AddPositions: ("positions",),
    **dict.fromkeys(
        (
            graphs.AttentionCore,
            graphs.HistoryPool,
            graphs.LayerNorm,
            norms.Centre,
            norms.RmsNorm,
            _layers.LayerNormalization,
            _layers.Add,
            _layers.Subtract,
            _layers.Multiply,
            _layers.Average,
            _layers.Maximum,
            _layers.Concatenate,
            _layers.Activation,
            _layers.ReLU,
            _layers.Softmax,
            _layers.Dot,
            _layers.GlobalAveragePooling1D,
            _layers.GlobalMaxPooling1D,
        ),
        (),
    ),
}

# Layers that only move values (or are gone when serving), so that what was rounded stays rounded.
PASSING: tuple[type, ...] = (
    _layers.InputLayer,
    _layers.Dropout,
    _layers.SpatialDropout1D,
    _layers.Reshape,
    _layers.Flatten,
    _layers.Permute,
    _layers.RepeatVector,
    graphs.TakeLast,
    graphs.SliceRows,
    graphs.StepDropout,
    AddScores,
    SpreadScores,
)

_ADVICE = {
    "MultiHeadAttention": "Write attention as four Dense layers around edgepack.models.graphs.AttentionCore",
    "Functional": "Build the layers of this inner model into the outer one",
    "Sequential": "Build the layers of this inner model into the outer one",
    "Lambda": "Put the operation into a layer class of its own",
    "TFOpLambda": "Put the operation into a layer class of its own",
    "SlicingOpLambda": "Take the slice in a layer class of its own",
    "BatchNormalization": "Fold it into the layer before it, or use LayerNormalization",
}
_OWN_CLASS = (
    "Give the class a method `get_quantizable_weights` that returns the names of its weights to round "
    "(an empty list for none)"
)


class ZeroKeepingQuantizer(_quantizers.LastValueQuantizer):  # type: ignore[misc, name-defined]
    """Per-tensor symmetric 8-bit weights in which a zero stays a zero, whatever training does.

    The zeros are read off the weights themselves at every step. TF-MOT's prune-preserving quantizer
    remembers them from when it was built instead, and so kills a weight that was built as zeros and
    loaded later.
    """

    def __init__(self) -> None:
        super().__init__(num_bits=8, per_axis=False, symmetric=True, narrow_range=True)

    def get_config(self) -> dict[str, Any]:
        """Return nothing: there is only one kind."""
        return {}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Return `inputs` rounded, its zeros zero and without a gradient."""
        kept = tf.cast(tf.not_equal(inputs, 0), inputs.dtype)
        return super().__call__(inputs * kept, training, weights, **kwargs)


@tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
def shared(weights: Any) -> Any:
    """Return float32 `weights`; those that are equal get the mean of their gradients, and so stay equal."""

    def together(gradient: Any) -> Any:
        values, member = tf.unique(tf.reshape(weights, [-1]))
        mean = tf.math.unsorted_segment_mean(tf.reshape(gradient, [-1]), member, tf.size(values))
        return tf.reshape(tf.gather(mean, member), tf.shape(weights))

    return tf.identity(weights), together


class ClusterKeepingQuantizer(ZeroKeepingQuantizer):
    """As `ZeroKeepingQuantizer`, and weights that are equal stay equal, whatever training does.

    TF-MOT's cluster-preserve quantizer keeps the cluster of every weight in variables that are filled
    when a layer is built, for Dense and convolutions alone.
    """

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Return `inputs` rounded, with one gradient for those that are equal."""
        return super().__call__(shared(tf.convert_to_tensor(inputs)), training, weights, **kwargs)


class _SharingQuantizer(_quantizers.Quantizer):  # type: ignore[misc, name-defined]
    """No rounding at all: weights that are equal stay equal, and zeros zero."""

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        return {}

    def get_config(self) -> dict[str, Any]:
        return {}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        return shared(tf.convert_to_tensor(inputs)) * tf.cast(tf.not_equal(inputs, 0), inputs.dtype)


class LayerScheme(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc]
    """One layer's part: which weights are rounded, whether zeros must stay, whether the output is rounded.

    `rules`, by a weight's name, puts weights on a coarse grid instead of 8 bits.
    """

    def __init__(
        self,
        weights: tuple[str, ...],
        keep_zeros: bool,
        output: bool,
        keep_clusters: bool = False,
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        self.weights, self.keep_zeros, self.output = tuple(weights), keep_zeros, output
        self.keep_clusters, self.rules = keep_clusters, rules or {}

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the config."""
        own = {"keep_zeros": self.keep_zeros, "keep_clusters": self.keep_clusters, "output": self.output}
        return {"weights": list(self.weights), **own, "rules": dict(self.rules)}

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Return the weights with a quantizer each: one scale for the tensor, zero point 0, -127..127.

        One scale for a table as for a Dense kernel is what lets tied weights be stored once.
        """
        return [(getattr(layer, name), self._weight_quantizer(name)) for name in self.weights]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Put the rounded tensors in the weights' place for one call."""
        for name, rounded in zip(self.weights, quantize_weights, strict=True):
            setattr(layer, name, rounded)

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Return nothing: a fused activation is rounded as the layer's output."""
        return []

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Do nothing, for the same reason."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """Return the output's quantizer: asymmetric, its range a moving average over batches."""
        if not self.output:
            return []
        return [_quantizers.MovingAverageQuantizer(8, per_axis=False, symmetric=False, narrow_range=False)]

    def _weight_quantizer(self, name: str) -> Any:
        if name in self.rules:
            return GridQuantizer(len(self.rules[name].steps), self.rules[name].levels)
        if self.keep_clusters:
            return ClusterKeepingQuantizer()
        if self.keep_zeros:
            return ZeroKeepingQuantizer()
        return _quantizers.LastValueQuantizer(8, per_axis=False, symmetric=True, narrow_range=True)


class _SharedScheme(LayerScheme):
    def _weight_quantizer(self, name: str) -> Any:
        return _SharingQuantizer()


def shared_scheme(weight: str) -> LayerScheme:
    """Return the scheme of a layer that is not rounded, whose equal values of `weight` train as one."""
    return _SharedScheme((weight,), True, False, True)


def scheme_of(
    layer: Any,
    *,
    keep_zeros: bool,
    float_output: bool,
    keep_clusters: bool = False,
    rules: Mapping[str, Rule] | None = None,
) -> LayerScheme | None:
    """Return how `layer` is quantized, None when it only passes values on or gives ids.

    A class of the user's own takes part through `get_quantizable_weights`. Raises ConvertError naming
    a layer of any other class.
    """
    if type(layer) in PASSING or not _gives_floats(layer):
        return None
    weights = rounded_weights(layer)
    if weights is None:
        raise _unsupported(layer)
    # A looked-up row has the table's own scale: rounding it again would only add error.
    output = not float_output and not isinstance(layer, _layers.Embedding)
    # Clusters are those of Dense kernels and tables; a positional table has none.
    keep_clusters = keep_clusters and isinstance(layer, (_layers.Dense, _layers.Embedding))
    return LayerScheme(weights, keep_zeros, output, keep_clusters, rules)


def _gives_floats(layer: Any) -> bool:
    outputs = tf.nest.flatten(layer.get_output_at(0))
    return any(tf.as_dtype(output.dtype).is_floating for output in outputs)


def rounded_weights(layer: Any) -> tuple[str, ...] | None:
    """Return the names of a layer's weights to round, None for a class that nobody told us about."""
    if type(layer) in _ROUNDED:
        return _ROUNDED[type(layer)]
    own = getattr(layer, "get_quantizable_weights", None)
    return tuple(own()) if own is not None else None


def _unsupported(layer: Any) -> ConvertError:
    kind = type(layer).__name__
    return ConvertError(
        f"layer '{layer.name}'",
        f"quantization-aware training does not know the class {kind}",
        allowed=f"known are {', '.join(sorted(known.__name__ for known in (*_ROUNDED, *PASSING)))}",
        remedy=f"{_ADVICE.get(kind, _OWN_CLASS)}, or use the recipe `ptq`.",
    )
