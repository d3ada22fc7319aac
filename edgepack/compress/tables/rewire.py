"""Puts other layers in the place of some in a functional model, and keeps the weights of the rest."""

from collections.abc import Callable, Mapping
from typing import Any

from edgepack.keras2 import keras, tf

Replacement = Callable[[Any], Any]


def rewired(model: Any, replacements: Mapping[str, Replacement], *, after: Replacement | None = None) -> Any:
    """Return a copy of the functional `model`, weights included, in which some layers are replaced.

    `replacements` gives, by a layer's name, what makes its output from its input (Keras tensors);
    `after` what comes behind the model's only output. Layers are copied and not shared.
    """
    copies: dict[str, Any] = {}
    made = {
        id(tensor): keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }
    inputs = list(made.values())
    for node in _nodes(model):
        args, kwargs = tf.nest.map_structure(lambda x: made.get(id(x), x), (node.call_args, node.call_kwargs))
        name = node.layer.name
        call = replacements.get(name) or copies.setdefault(name, _unbuilt(node.layer))
        outputs = call(*args) if name in replacements else call(*args, **kwargs)
        for old, new in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True):
            made[id(old)] = new
    outputs = [made[id(tensor)] for tensor in model.outputs]
    if after is not None:
        outputs = [after(outputs[0])]
    copy = keras.Model(
        inputs if len(inputs) > 1 else inputs[0], outputs if len(outputs) > 1 else outputs[0], name=model.name
    )
    for name, layer in copies.items():
        layer.set_weights(model.get_layer(name).get_weights())
    return copy


def _nodes(model: Any) -> list[Any]:
    """Return the calls of layers that make up `model`, inputs before what reads them."""
    by_depth = model._nodes_by_depth
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth] if not node.is_input]


def _unbuilt(layer: Any) -> Any:
    return layer.__class__.from_config(layer.get_config())
