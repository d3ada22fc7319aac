"""Rewrites before quantization: cross-layer equalization, and what rounding adds to a layer's mean.

Both are of Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.keras2 import keras, tf
from edgepack.models import graphs
from edgepack.models.graphs import bare_name, fed
from edgepack.rows import Rows

# They hand every channel on by itself, whatever its scale.
_BY_CHANNEL: tuple[type, ...] = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.RepeatVector,
    keras.layers.ReLU,
    graphs.TakeLast,
    graphs.SliceRows,
    graphs.StepDropout,
)
_NORMS = (graphs.LayerNorm, keras.layers.LayerNormalization)
_VALUE_INPUT = 2  # of AttentionCore, which mixes positions and leaves channels alone
_DEVIATIONS = 3  # a normalized channel reaches about so far


class Pair(NamedTuple):
    """A layer whose channels can be scaled one by one, and all the Dense layers that read them."""

    producer: Any
    consumers: tuple[Any, ...]


def pairs(model: Any, fixed: tuple[str, ...] = (), *, through_attention: bool = True) -> list[Pair]:
    """Return the pairs in a functional model, from input to output.

    A producer is a Dense layer (linear or ReLU) or a LayerNorm over the last axis, the consumers are the
    Dense layers behind it (`consumers`). Layers named in `fixed` (tied ones) take no part, nor does a
    producer whose channels go anywhere else.
    """
    found = []
    for layer in model.layers:
        if _scales(layer, fixed):
            behind = consumers(layer, model, fixed, through_attention=through_attention)
            found += [Pair(layer, tuple(behind))] if behind else []
    return found


def consumers(
    layer: Any, model: Any, fixed: tuple[str, ...] = (), *, through_attention: bool = True
) -> list[Any] | None:
    """Return the Dense layers that read the channels of `layer`, None when anything else reads them.

    Between them may stand what hands channels on one by one, and the values' side of an AttentionCore
    unless `through_attention` is False. Layers named in `fixed` count as anything else.
    """
    if any(output is layer.output for output in model.outputs):
        return None
    found: list[Any] = []
    for reader, positions in readers(layer, model):
        mixes = (type(reader), positions) == (graphs.AttentionCore, {_VALUE_INPUT})
        if _is_dense(reader) and reader.name not in fixed and len(reader.inbound_nodes) == 1:
            found.append(reader)
        elif type(reader) in _BY_CHANNEL or (mixes and through_attention):
            behind = consumers(reader, model, fixed, through_attention=through_attention)
            if behind is None:
                return None
            found += behind
        else:
            return None
    return found or None


def readers(layer: Any, model: Any) -> Iterator[tuple[Any, set[int]]]:
    """Yield each layer of `model` that reads `layer`, and as which of its inputs."""
    for reader in model.layers:
        for node in reader.inbound_nodes:
            positions = {at for at, (source, *_) in enumerate(node.iterate_inbound()) if source is layer}
            if positions:
                yield reader, positions


def equalize(model: Any, fixed: tuple[str, ...] = ()) -> list[str]:
    """Scale channels so that a pair's two sides reach equally far, in place; return the producers' names.

    Channel i is divided by s_i = sqrt(r1_i / r2_i) on the first side and its row multiplied on the second,
    r1 and r2 being how far the two reach. The model computes the same as before.
    """
    found = pairs(model, fixed)
    for pair in found:
        first, second = _reach(pair.producer), np.max([_rows(layer) for layer in pair.consumers], axis=0)
        usable = (first > 0) & (second > 0)
        scale = np.sqrt(np.where(usable, first, 1) / np.where(usable, second, 1)).astype(np.float32)
        _divide(pair.producer, scale)
        for layer in pair.consumers:
            layer.kernel.assign(layer.kernel * scale[:, None])
    return [pair.producer.name for pair in found]


def bias_corrections(
    wrapped: Any, plain: Any, rows: NDArray[np.int32] | Rows
) -> dict[str, NDArray[np.float32]]:
    """Return what to add to the bias of each rounded Dense layer so that its mean stays, by layer name.

    That is E[x] (W - W_rounded), float32 [units], with the mean of `plain`'s inputs over `rows` int32
    [n, L] an input. A Dense layer without a bias has no place for it.
    """
    layers = {bare_name(layer.name): layer for layer in wrapped.layers if getattr(layer, "_weight_vars", ())}
    names = [
        name for name, layer in layers.items() if _is_dense(layer.layer) and layer.layer.bias is not None
    ]
    watched = keras.Model(plain.inputs, {name: plain.get_layer(name).input for name in names})
    corrections = {}
    for name, values in watched(fed(plain, rows)).items():
        weight, quantizer, ranges = layers[name]._weight_vars[0]
        error = weight - quantizer(weight, False, weights=ranges)
        mean = tf.reduce_mean(tf.reshape(values, (-1, values.shape[-1])), axis=0)
        corrections[name] = tf.linalg.matvec(error, mean, transpose_a=True).numpy()
    return corrections


def add_to_biases(wrapped: Any, corrections: dict[str, NDArray[np.float32]]) -> None:
    """Add `corrections`, by layer name, to the biases of those layers that `wrapped` rounds."""
    for layer in wrapped.layers:
        if getattr(layer, "_weight_vars", ()) and bare_name(layer.name) in corrections:
            layer.layer.bias.assign_add(corrections[bare_name(layer.name)])


def _is_dense(layer: Any) -> bool:
    return type(layer) is keras.layers.Dense


def _scales(layer: Any, fixed: tuple[str, ...]) -> bool:
    if layer.name in fixed or len(layer.inbound_nodes) != 1:
        return False
    if _is_dense(layer):
        return layer.activation in (keras.activations.linear, keras.activations.relu)
    over_last = type(layer) in _NORMS and list(layer.axis) == [len(layer.input_shape) - 1]
    return bool(over_last and layer.scale)


def _reach(producer: Any) -> NDArray[np.float32]:
    if _is_dense(producer):
        return np.asarray(np.abs(producer.kernel.numpy()).max(axis=0))
    beta = np.abs(producer.beta.numpy()) if producer.center else 0
    return np.asarray(_DEVIATIONS * np.abs(producer.gamma.numpy()) + beta)


def _rows(layer: Any) -> NDArray[np.float32]:
    return np.asarray(np.abs(layer.kernel.numpy()).max(axis=1))


def _divide(producer: Any, scale: NDArray[np.float32]) -> None:
    for weight in producer.weights:
        weight.assign(weight / scale)
