"""Structured pruning: hidden units and heads that are gone from file and run time, not merely zero.

A unit is a column of a Dense layer that only Dense layers read (a feed-forward layer's hidden unit). What a
unit gives is linear in its activation, so its worth is the mean of |activation| times the norm of the rows
that read it (Molchanov et al., ICLR 2017, the first-order criterion for the layer's output). Heads are
those of `edgepack.compress.heads`. What all that goes gave on average is added to the readers' biases.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.compress import heads
from edgepack.compress.equalize import Pair, pairs
from edgepack.compress.heads import Attention, Kept
from edgepack.compress.recipes import Thinning
from edgepack.errors import ConvertError
from edgepack.keras2 import keras
from edgepack.models.graphs import Graphs, fed
from edgepack.rows import Rows

_MULTIPLE = 8
"""Widths are multiples of it: ARM's int8 kernels take eight columns at a time."""


def thin(graphs: Graphs, settings: Thinning, rows: NDArray[np.int32] | Rows) -> Graphs:
    """Return graphs like `graphs`, trained weights and all, without the units and heads of the least worth.

    `settings` says which share of each goes. Activations are those that `rows` int32 [n, L] an input give
    rise to. Raises ConvertError when the model has nothing of the kinds that are to go.
    """
    kept = _kept(graphs, settings, rows)
    written = {layer.name: one for one in kept for layer in one.producers}
    read = {layer.name: one for one in kept for layer in one.consumers}
    thinned = reshaped(graphs, settings)
    for before, after in zip(graphs[:2], thinned[:2], strict=True):
        for layer in before.layers:
            if weights := layer.get_weights():
                left = _sliced(weights, written.get(layer.name), read.get(layer.name))
                after.get_layer(layer.name).set_weights(left)
    return thinned


def reshaped(graphs: Graphs, settings: Thinning) -> Graphs:
    """Return untrained graphs of the shapes that `thin` gives: for weights that it once made."""
    hidden, _ = _found(graphs, settings)
    widths = {pair.producer.name: {"units": _width(pair.producer.units, settings.share)} for pair in hidden}

    def rebuilt(view: Any) -> Any:
        # Cores have no weights, and so perhaps another name in each view.
        sizes = (heads.sizes(one, settings.head_share) for one in _attentions(view, graphs, settings))
        return _rebuilt(view, widths | {name: size for each in sizes for name, size in each.items()})

    serving = rebuilt(graphs.serving)
    alone = graphs.training is graphs.serving
    return graphs._replace(serving=serving, training=serving if alone else rebuilt(graphs.training))


def _found(graphs: Graphs, settings: Thinning) -> tuple[list[Pair], list[Attention]]:
    found = pairs(graphs.serving, _fixed(graphs), through_attention=False) if settings.share else []
    hidden = [pair for pair in found if _is_hidden(pair) and pair.producer.units > _MULTIPLE]
    attentions = _attentions(graphs.serving, graphs, settings)
    if not hidden and not attentions:
        raise _nothing_to_take(graphs.serving.name, settings)
    return hidden, attentions


def _attentions(view: Any, graphs: Graphs, settings: Thinning) -> list[Attention]:
    return heads.attentions(view, _fixed(graphs)) if settings.head_share else []


def _fixed(graphs: Graphs) -> tuple[str, ...]:
    return () if graphs.tied is None else (graphs.tied,)


def _nothing_to_take(model: str, settings: Thinning) -> ConvertError:
    units = ("hidden units", "a Dense layer with ReLU that only Dense layers read", "`thin`")
    several = ("attention heads", "an AttentionCore of several heads between Dense layers", "`heads`")
    wanted = [units] * bool(settings.share) + [several] * bool(settings.head_share)
    what, where, recipe = zip(*wanted, strict=True)
    return ConvertError(
        f"model '{model}'",
        f"it has no {' and no '.join(what)} that could be taken out",
        allowed=", or ".join(where),
        remedy=f"Use a recipe without {' and '.join(recipe)}.",
    )


def _is_hidden(pair: Pair) -> bool:
    producer = pair.producer
    return isinstance(producer, keras.layers.Dense) and producer.activation is keras.activations.relu


def _kept(graphs: Graphs, settings: Thinning, rows: NDArray[np.int32] | Rows) -> list[Kept]:
    hidden, attentions = _found(graphs, settings)
    outputs = {pair.producer.name: [pair.producer.output] for pair in hidden}
    outputs |= {one.core.name: [one.core.output, one.core.input[-1]] for one in attentions}
    watched = keras.Model(graphs.serving.inputs, outputs)(fed(graphs.serving, rows))
    seen = {name: [tensor.numpy() for tensor in tensors] for name, tensors in watched.items()}
    return [
        *(_kept_units(pair, *seen[pair.producer.name], share=settings.share) for pair in hidden),
        *(heads.kept(one, *seen[one.core.name], share=settings.head_share) for one in attentions),
    ]


def _kept_units(pair: Pair, activations: NDArray[np.float32], *, share: float) -> Kept:
    flat = activations.reshape(-1, activations.shape[-1])
    norms = sum(np.linalg.norm(reader.kernel.numpy(), axis=1) for reader in pair.consumers)
    worth = np.abs(flat).mean(axis=0) * norms
    best = np.argsort(-worth, kind="stable")[: _width(flat.shape[1], share)]
    return Kept((pair.producer,), pair.consumers, np.sort(best), flat.mean(axis=0))


def _width(units: int, share: float) -> int:
    # `units` is above _MULTIPLE, and one multiple at least goes.
    nearest, most = round(units * (1 - share) / _MULTIPLE), (units - 1) // _MULTIPLE
    return max(1, min(nearest, most)) * _MULTIPLE


def _rebuilt(model: Any, sizes: dict[str, dict[str, int]]) -> Any:
    def copied(layer: Any) -> Any:
        return layer.__class__.from_config(layer.get_config() | sizes.get(layer.name, {}))

    return keras.models.clone_model(model, clone_function=copied)


def _sliced(
    weights: list[NDArray[np.float32]], written: Kept | None, read: Kept | None
) -> list[NDArray[np.float32]]:
    kernel, *bias = weights
    if read is not None:
        gone = np.setdiff1d(np.arange(len(kernel)), read.channels)
        bias = [values + read.means[gone] @ kernel[gone] for values in bias]
        kernel = kernel[read.channels]
    if written is not None:
        kernel, bias = kernel[:, written.channels], [values[written.channels] for values in bias]
    return [kernel, *bias]
