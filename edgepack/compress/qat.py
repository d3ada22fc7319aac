"""Quantization-aware training: wraps a functional model so that it computes as its int8 file will.

A wrapped model is never loaded from a Keras file (TF-MOT cannot read back what it wrote): build the float
model again, wrap it, load the weights (`edgepack.compress.weights`).
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.schemes import PASSING, LayerScheme, rounded_weights, scheme_of
from edgepack.compress.tables import grid
from edgepack.compress.tables.hashed import ItemScales
from edgepack.compress.tfmot import tfmot
from edgepack.errors import ConvertError
from edgepack.keras2 import keras, tf
from edgepack.models.graphs import bare_name, fed, transfer
from edgepack.ranges import Method, chosen
from edgepack.rows import Rows, part, row_count

_CALIBRATION_ROWS = 16

Rules = Mapping[str, Mapping[str, grid.Rule]]
"""What stands on a coarse grid: layer -> variable -> rule."""


def wrap(
    model: Any,
    *,
    keep_zeros: bool,
    float_outputs: bool,
    keep_clusters: bool = False,
    float_layers: Collection[str] = (),
    rules: Rules | None = None,
) -> Any:
    """Return a copy of `model`, weights included, whose layers round to 8 bits as `schemes` says.

    `model` is a functional Keras 2 model. With `keep_zeros` pruned weights stay pruned, with
    `keep_clusters` equal ones of a layer stay equal. Layers named in `float_layers` are not rounded. With
    `float_outputs` the layers that give the model's outputs are not rounded there: 256 levels are too
    few to rank a catalogue by. Weights in `rules` are rounded by those. This is TF-MOT's `quantize_apply`
    without its rearranging of layers.

    Raises ConvertError naming a layer of a class that cannot be quantized.
    """
    _require_functional(model)
    last = _output_layers(model) if float_outputs else set()

    def wrapped(layer: Any) -> Any:
        if layer.name in float_layers:
            return layer.__class__.from_config(layer.get_config())
        scheme = scheme_of(
            layer,
            keep_zeros=keep_zeros,
            float_output=layer.name in last,
            keep_clusters=keep_clusters,
            rules=(rules or {}).get(layer.name),
        )
        copy = layer.__class__.from_config(_int8_config(layer))
        return copy if scheme is None else _wrapper(copy, scheme)

    return _with_steps(_copied(model, wrapped), rules or {})


def wrap_grids(model: Any, rules: Rules) -> Any:
    """Return a copy of `model`, weights included, whose weights in `rules` are rounded, and nothing else.

    Raises ConvertError for a model that is not functional.
    """
    _require_functional(model)

    def wrapped(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        own = rules.get(layer.name)
        return copy if own is None else _wrapper(copy, LayerScheme(tuple(own), False, False, rules=own))

    return _with_steps(_copied(model, wrapped), rules)


def bake(wrapped: Any) -> None:
    """Put every weight that has a grid on it for good, where 8 bits then keep it as it is."""
    for weight, quantizer, variables in _rounded(wrapped):
        if isinstance(quantizer, grid.GridQuantizer):
            weight.assign(quantizer(weight, False, weights=variables))


def wrap_tables(model: Any, tied: Collection[str], float_layers: Collection[str] = ()) -> Any:
    """Return `model` with 8-bit weights in its tables and in the Dense layers named `tied`, and no more.

    Those named in `float_layers` are left out.

    The way of post-training quantization: it gives a table and its transposed twin one scale and zero
    point 0, so that an int8 file can store them once. Everything else is the converter's to calibrate.
    Other layers are shared with `model`; one that is not functional comes back as it is.
    """
    if not _is_functional(model):
        return model

    def wrapped(layer: Any) -> Any:
        is_table = isinstance(layer, keras.layers.Embedding) or layer.name in tied
        if not is_table or layer.name in float_layers:
            return layer
        copy = layer.__class__.from_config(layer.get_config())
        return _wrapper(copy, LayerScheme(rounded_weights(layer) or (), False, False))

    return _copied(model, wrapped)


def calibrate(wrapped: Any, plain: Any, rows: NDArray[np.int32] | Rows, method: Method = "min-max") -> None:
    """Set every range of `wrapped` from `plain`, the float model that it was made from.

    Output ranges are chosen by `method` from the values that `rows` int32 [n, L] an input give rise to, 0
    among them, where TF-MOT would start at ±6 and take thousands of steps to get away.
    """
    quantizers = {
        bare_name(layer.name): layer._output_quantizer_vars for layer in _with_rounded_output(wrapped)
    }
    outputs = {name: _outputs_of(plain.get_layer(name)) for name in quantizers}
    watched = tf.function(keras.Model(plain.inputs, outputs), reduce_retracing=True)
    for name, (low, high) in chosen(lambda: _seen(plain, watched, rows), method).items():
        quantizers[name]["min_var"].assign(low)
        quantizers[name]["max_var"].assign(high)
    refresh_weight_ranges(wrapped)


def calibrate_in_turn(wrapped: Any, rows: NDArray[np.int32] | Rows, method: Method = "min-max") -> None:
    """Set every output range of `wrapped` by `method` from what it computes itself, layer after layer.

    Each range is chosen from all `rows` int32 [n, L] an input as they leave its layer when the weights are
    rounded and so is everything before: rounding has moved means and reach by then, and no range of the
    float model knows of it. A layer that is called more than once gets a range that holds those of its
    calls. All rows go through together, so that one pass is enough.

    Activations come last, after weights and biases, in Nagel et al., "A White Paper on Neural Network
    Quantization", 2021, too; here each also comes after the activations before it.
    """
    for layer in _with_rounded_output(wrapped):
        for end in ("min_var", "max_var"):
            layer._output_quantizer_vars[end].assign(0.0)
        layer._output_quantizers = [_Choosing(layer._output_quantizers[0], method)]
    try:
        wrapped(fed(wrapped, rows), training=False)
    finally:
        for layer in _with_rounded_output(wrapped):
            layer._output_quantizers = [layer._output_quantizers[0].quantizer]


class _Choosing:
    """Stands for an output's `quantizer` during an eager pass: widens its range, then rounds by it."""

    def __init__(self, quantizer: Any, method: Method) -> None:
        self.quantizer, self._method = quantizer, method

    def __call__(self, inputs: Any, training: Any, weights: dict[str, Any]) -> Any:
        low, high = chosen(lambda: [("", inputs.numpy())], self._method)[""]
        weights["min_var"].assign(tf.minimum(weights["min_var"], low))
        weights["max_var"].assign(tf.maximum(weights["max_var"], high))
        return self.quantizer(inputs, training, weights=weights)


def _with_rounded_output(wrapped: Any) -> list[Any]:
    return [layer for layer in wrapped.layers if getattr(layer, "_output_quantizers", None)]


def _seen(
    plain: Any, watched: Any, rows: NDArray[np.int32] | Rows
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for start in range(0, row_count(rows), _CALIBRATION_ROWS):
        found = watched(fed(plain, part(rows, start, start + _CALIBRATION_ROWS)))
        yield from ((name, value.numpy()) for name, values in found.items() for value in values)


def refresh_weight_ranges(wrapped: Any) -> None:
    """Set the ranges of all rounded weights from the weights as they are now.

    One on a coarse grid has its outermost level at ±127, where the converter puts it: levels stay apart.
    """
    for weight, quantizer, ranges in _rounded(wrapped):
        quantizer(weight, True, weights=ranges)


def carry(trained: Any, serving: Any, *, table: str, tied: str | None) -> None:
    """Copy weights and ranges of the wrapped `trained` into the wrapped `serving`, as `transfer` does."""
    transfer(trained, serving, table=table, tied=tied)
    refresh_weight_ranges(serving)


def weight_scales(wrapped: Any) -> dict[str, float]:
    """Return the scale of each rounded weight, by "layer/variable": greatest magnitude / 127."""
    scales = {}
    for layer in wrapped.layers:
        for weight, _, ranges in getattr(layer, "_weight_vars", ()):
            variable = weight.name.split("/")[-1].split(":")[0]
            scales[f"{bare_name(layer.name)}/{variable}"] = float(ranges["max_var"].numpy()) / 127
    return scales


def _rounded(wrapped: Any) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Yield each rounded weight with its quantizer and that quantizer's variables."""
    for layer in wrapped.layers:
        yield from getattr(layer, "_weight_vars", ())


def _with_steps(wrapped: Any, rules: Rules) -> Any:
    for layer in wrapped.layers:
        own = list(rules.get(bare_name(layer.name), {}).values())
        found = [(w, v["steps"]) for w, _, v in getattr(layer, "_weight_vars", ()) if "steps" in v]
        for (weight, steps), rule in zip(found, own, strict=True):
            steps.assign(rule.steps)
            if rule.rate:
                layer.add_loss(partial(_rate_loss, rule.rate, weight, steps))
    return wrapped


def _rate_loss(rate: float, weight: Any, steps: Any) -> Any:
    return rate * grid.bits(grid.in_steps(weight, steps))


def _copied(model: Any, clone_function: Callable[[Any], Any]) -> Any:
    copy = keras.models.clone_model(model, clone_function=clone_function)
    transfer(model, copy, table="", tied=None)
    refresh_weight_ranges(copy)
    return copy


def _wrapper(layer: Any, scheme: LayerScheme) -> Any:
    return tfmot.quantization.keras.QuantizeWrapperV2(layer, scheme)


def _int8_config(layer: Any) -> dict[str, Any]:
    config: dict[str, Any] = layer.get_config()
    # What a layer of ours rounds within itself, for training has to live with an int8 file's steps there.
    return config | {name: True for name in ("int8_weights", "int8_state") if name in config}


def _outputs_of(layer: Any) -> list[Any]:
    return [layer.get_output_at(node) for node in range(len(layer._inbound_nodes))]


def _output_layers(model: Any) -> set[str]:
    """Return the layers whose values reach an output with nothing but moving in between."""
    names = set()
    for tensor in model.outputs:
        made: Any = tensor._keras_history
        while type(made.layer) in (*PASSING, ItemScales):
            read = made.layer.inbound_nodes[made.node_index].keras_inputs
            if not read:
                break
            made = read[0]._keras_history
        names.add(made.layer.name)
    return names


def _is_functional(model: Any) -> bool:
    return bool(getattr(model, "_is_graph_network", False))


def _require_functional(model: Any) -> None:
    if not _is_functional(model):
        raise ConvertError(
            f"model '{model.name}'",
            f"it is a {type(model).__name__} with a call() of its own",
            allowed="only functional and Sequential models can be taken apart into layers",
            remedy="Build it as keras.Model(inputs, outputs), or use the recipe `ptq`.",
        )
