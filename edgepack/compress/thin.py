"""Structured pruning: hidden units that are gone from the file and from the run time, not merely zero.

A unit is a column of a Dense layer that only Dense layers read (a feed-forward layer's hidden unit). What a
unit gives is linear in its activation, so its worth is the mean of |activation| times the norm of the rows
that read it (Molchanov et al., ICLR 2017, the first-order criterion for the layer's output); what the
units that go gave on average is added to the readers' biases.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.equalize import Pair, pairs
from edgepack.errors import ConvertError
from edgepack.keras2 import keras
from edgepack.models.graphs import Graphs, fed
from edgepack.rows import Rows

_MULTIPLE = 8
"""Widths are multiples of it: ARM's int8 kernels take eight columns at a time."""


class Kept(NamedTuple):
    """Which units of a Dense layer stay (sorted), and the mean activation of all, float32 [units]."""

    units: NDArray[np.int64]
    means: NDArray[np.float32]


def thin(graphs: Graphs, share: float, rows: NDArray[np.int32] | Rows) -> Graphs:
    """Return graphs like `graphs`, trained weights and all, with a `share` of their hidden units taken out.

    Activations are those that `rows` int32 [n, L] an input give rise to. Raises ConvertError when the model
    has no hidden units.
    """
    found = _found(graphs)
    watched = keras.Model(graphs.serving.inputs, {p.producer.name: p.producer.output for p in found})
    activations = watched(fed(graphs.serving, rows))
    kept = {p.producer.name: _kept(p, activations[p.producer.name].numpy(), share) for p in found}
    readers = {reader.name: pair.producer.name for pair in found for reader in pair.consumers}
    thinned = reshaped(graphs, share)
    for before, after in zip(graphs[:2], thinned[:2], strict=True):
        for layer in before.layers:
            if weights := layer.get_weights():
                after.get_layer(layer.name).set_weights(_sliced(layer.name, weights, kept, readers))
    return thinned


def reshaped(graphs: Graphs, share: float) -> Graphs:
    """Return untrained graphs of the shapes that `thin` gives: for weights that it once made."""
    widths = {pair.producer.name: _width(pair.producer.units, share) for pair in _found(graphs)}
    serving = _rebuilt(graphs.serving, widths)
    alone = graphs.training is graphs.serving
    return graphs._replace(serving=serving, training=serving if alone else _rebuilt(graphs.training, widths))


def _found(graphs: Graphs) -> list[Pair]:
    fixed = () if graphs.tied is None else (graphs.tied,)
    found = [
        pair for pair in pairs(graphs.serving, fixed) if _is_hidden(pair) and pair.producer.units > _MULTIPLE
    ]
    if not found:
        raise ConvertError(
            f"model '{graphs.serving.name}'",
            "it has no hidden units that could be taken out",
            allowed="a Dense layer with ReLU that only Dense layers read",
            remedy="Use a recipe without `thin`.",
        )
    return found


def _is_hidden(pair: Pair) -> bool:
    producer = pair.producer
    return isinstance(producer, keras.layers.Dense) and producer.activation is keras.activations.relu


def _kept(pair: Pair, activations: NDArray[np.float32], share: float) -> Kept:
    flat = activations.reshape(-1, activations.shape[-1])
    norms = sum(np.linalg.norm(reader.kernel.numpy(), axis=1) for reader in pair.consumers)
    worth = np.abs(flat).mean(axis=0) * norms
    best = np.argsort(-worth, kind="stable")[: _width(flat.shape[1], share)]
    return Kept(np.sort(best), flat.mean(axis=0))


def _width(units: int, share: float) -> int:
    return max(_MULTIPLE, round(units * (1 - share) / _MULTIPLE) * _MULTIPLE)


def _rebuilt(model: Any, widths: dict[str, int]) -> Any:
    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in widths:
            config["units"] = widths[layer.name]
        return layer.__class__.from_config(config)

    return keras.models.clone_model(model, clone_function=copied)


def _sliced(
    name: str, weights: list[NDArray[np.float32]], kept: dict[str, Kept], readers: dict[str, str]
) -> list[NDArray[np.float32]]:
    kernel, *bias = weights
    if name in readers:
        units, means = kept[readers[name]]
        gone = np.setdiff1d(np.arange(len(kernel)), units)
        bias = [values + means[gone] @ kernel[gone] for values in bias]
        kernel = kernel[units]
    if name in kept:
        kernel, bias = kernel[:, kept[name].units], [values[kept[name].units] for values in bias]
    return [kernel, *bias]
