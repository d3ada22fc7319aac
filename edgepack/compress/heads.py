"""Attention heads that go: which ones, and the channels that go with them.

A trained attention can do without many of its heads (Michel et al., "Are Sixteen Heads Really Better than
One?", NeurIPS 2019). They judge a head by the gradient of the loss; here, as with hidden units, it is by the
layer's output: the mean square of what a head gives there, less its mean where a bias takes that over.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.equalize import consumers, readers
from edgepack.keras2 import keras
from edgepack.models.graphs import AttentionCore


class Attention(NamedTuple):
    """An AttentionCore, the Dense layers that give each head channels of its own, and those that read it.

    Keys and values that all heads share have no producer here: they stay as they are.
    """

    core: Any
    producers: tuple[Any, ...]
    consumers: tuple[Any, ...]


class Kept(NamedTuple):
    """Which channels between Dense layers stay (sorted), and the mean of all of them, float32 [channels]."""

    producers: tuple[Any, ...]
    consumers: tuple[Any, ...]
    channels: NDArray[np.int64]
    means: NDArray[np.float32]


def attentions(model: Any, fixed: tuple[str, ...] = ()) -> list[Attention]:
    """Return the attentions of a functional model whose heads can go, from input to output.

    Such a one has several heads and stands between Dense layers, of which none is named in `fixed` and
    whose channels go nowhere else.
    """
    found = []
    for core in model.layers:
        if type(core) is AttentionCore and core.heads > 1 and len(core.inbound_nodes) == 1:
            before = _producers(core, model, fixed)
            behind = consumers(core, model, fixed, through_attention=False)
            found += [Attention(core, before, tuple(behind))] if before and behind else []
    return found


def sizes(attention: Attention, share: float) -> dict[str, dict[str, int]]:
    """Return what the layers around `attention` are built with when a `share` of its heads goes, by name."""
    heads = attention.core.heads
    stay = _staying(heads, share)
    widths = {layer.name: {"units": layer.units // heads * stay} for layer in attention.producers}
    return {attention.core.name: {"heads": stay}, **widths}


def kept(
    attention: Attention, attended: NDArray[np.float32], ids: NDArray[np.int32], *, share: float
) -> Kept:
    """Return the channels of the heads that stay when the `share` of them goes that is worth least.

    `attended` float32 [n, T, d] is what the core gives for `ids` int32 [n, L].
    """
    # Where every position asks, nobody hears what padding was told.
    real = ids != 0 if attended.shape[1] == ids.shape[1] else np.ones(attended.shape[:2], bool)
    flat = attended[real]
    heads = attention.core.heads
    channels = np.arange(flat.shape[1]).reshape(heads, -1)
    worth = np.array([_worth(flat[:, own], own, attention) for own in channels])
    best = np.argsort(-worth, kind="stable")[: _staying(heads, share)]
    return Kept(*attention[1:], channels[np.sort(best)].ravel(), flat.mean(axis=0))


def _producers(core: Any, model: Any, fixed: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the layers that give each head its own part of its inputs, none unless all can be cut."""
    query, *others, _ = core.inbound_nodes[0].iterate_inbound()
    # Of another width they are of one head, shared by all.
    own = [layer for layer, _, _, x in (query, *others) if x.shape[-1] == query[3].shape[-1]]
    alone = all(_writes_alone(layer, core, model) and layer.name not in fixed for layer in own)
    return tuple({layer.name: layer for layer in own}.values()) if alone else ()


def _writes_alone(layer: Any, core: Any, model: Any) -> bool:
    return (
        type(layer) is keras.layers.Dense
        and layer.activation in (keras.activations.linear, keras.activations.relu)
        and len(layer.inbound_nodes) == 1
        and all(reader is core for reader, _ in readers(layer, model))
        and all(output is not layer.output for output in model.outputs)
    )


def _worth(values: NDArray[np.float32], own: NDArray[np.int64], attention: Attention) -> float:
    """Return the mean square of what layers behind give otherwise without the channels `own`."""
    total = 0.0
    for layer in attention.consumers:
        given = values @ layer.kernel.numpy()[own]
        change = given - given.mean(axis=0) if layer.use_bias else given
        total += float(np.square(change).sum(axis=1).mean())
    return total


def _staying(heads: int, share: float) -> int:
    return min(heads - 1, max(1, round(heads * (1 - share))))
