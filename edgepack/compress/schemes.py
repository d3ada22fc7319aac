"""What is rounded to 8 bits in which kind of layer: a table of TF-MOT QuantizeConfigs.

TF-MOT's own 8-bit scheme does not fit recommenders: it puts a quantizer on int32 ids, knows neither
Embedding nor LayerNormalization nor any layer of our own, and where a Dense layer feeds a Concatenate it
swaps the layer's config for one that forgets its zeros. Here every layer gets its config from this table
and nothing is rearranged.
"""

from collections.abc import Mapping
from typing import Any

from edgepack.compress.tables.grid import GridQuantizer, Rule
from edgepack.compress.tfmot import tfmot
from edgepack.errors import ConvertError
from edgepack.keras2 import keras, tf
from edgepack.models import graphs

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


class LayerScheme(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc]
    """One layer's part: which weights are rounded, whether zeros must stay, whether the output is rounded.

    `rules`, by a weight's name, puts weights on a coarse grid instead of 8 bits.
    """

    def __init__(
        self,
        weights: tuple[str, ...],
        keep_zeros: bool,
        output: bool,
        rules: Mapping[str, Rule] | None = None,
    ) -> None:
        self.weights, self.keep_zeros, self.output = tuple(weights), keep_zeros, output
        self.rules = rules or {}

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the config."""
        own = {"weights": list(self.weights), "keep_zeros": self.keep_zeros, "output": self.output}
        return {**own, "rules": dict(self.rules)}

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
        if self.keep_zeros:
            return ZeroKeepingQuantizer()
        return _quantizers.LastValueQuantizer(8, per_axis=False, symmetric=True, narrow_range=True)


def scheme_of(
    layer: Any, *, keep_zeros: bool, float_output: bool, rules: Mapping[str, Rule] | None = None
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
    return LayerScheme(weights, keep_zeros, output, rules)


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
