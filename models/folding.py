"""Folds a trained pre-norm encoder into the form that is compressed and shipped; equal in float, and cheaper.

A Dense layer that reads a norm takes its gamma and beta. In a residual stream whose mean is 0 LayerNorm is
RmsNorm (Ashkboos et al., SliceGPT, ICLR 2024): what writes to the stream is centred. Logits q_i . k_j are
x_i (Wq Wk') x_j, and sums of values are (sum of a_j x_j) Wv Wo: keys and values are the normed positions
themselves, and of four products of [L, d] by [d, d] two remain, none for the one query of a last block.
"""

from typing import Any, NamedTuple

import numpy as np
from edgepack.models.graphs import Graphs
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Affine(NamedTuple):
    """x W + b: `kernel` [d_in, d_out], `bias` [d_out], float64."""

    kernel: Array
    bias: Array

    def then(self, other: "Affine") -> "Affine":
        """Return this map, then `other`, as one."""
        return Affine(self.kernel @ other.kernel, self.bias @ other.kernel + other.bias)

    def centred(self) -> "Affine":
        """Return the map whose results are this one's less their mean."""
        return Affine(self.kernel - self.kernel.mean(axis=1, keepdims=True), self.bias - self.bias.mean())

    def give(self, layer: Any) -> None:
        """Set the weights of Dense `layer`, which may do without the bias."""
        layer.set_weights([self.kernel, self.bias] if layer.use_bias else [self.kernel])


def shipped(graphs: Graphs) -> Graphs:
    """Return what is compressed and shipped for trained `graphs`: their folded form, or themselves."""
    return graphs if graphs.fold is None else graphs.fold(graphs)


def shares_keys(heads: int, last: bool) -> bool:
    """Say whether a folded attention reads the normed positions as keys and values.

    Of several heads each needs a query as wide as the stream, which only a single query's are cheap.
    """
    return heads == 1 or last


def scale_and_shift(norm: Any, width: int) -> Affine:
    """Return gamma and beta of the layer `norm` as a diagonal map; the identity for None."""
    if norm is None:
        return Affine(np.eye(width), np.zeros(width))
    return Affine(np.diag(_of(norm.gamma)), _of(norm.beta))


def fold_attention(trained: Any, folded: Any, name: str, *, heads: int, shared: bool, centred: bool) -> None:
    """Set the attention layers of block `name` in `folded` from those in `trained`.

    `trained` has `{name}_attention_norm` (or none) and the Dense layers `{name}_query`, `_key`, `_value`
    and `_output` without bias; in `folded` query and output have one, and with `shared` keys there is no
    key and no value. `centred` says that the stream has no mean.
    """
    query, key, value, output = (
        dense(trained, f"{name}_{part}") for part in ("query", "key", "value", "output")
    )
    width = query.kernel.shape[0]
    norm = scale_and_shift(layer_of(trained, f"{name}_attention_norm"), width)
    # What a key's shift adds is the same for all keys of a query, and the softmax does not see it.
    query, key, value = norm.then(query), Affine(norm.kernel @ key.kernel, key.bias), norm.then(value)
    query = Affine(*(part * (width // heads) ** -0.5 for part in query))
    shift = Affine(output.kernel, value.bias @ output.kernel + output.bias)
    if shared:
        query = _beside([_head(query, i, heads).then(_turned(_head(key, i, heads))) for i in range(heads)])
        slices = np.split(output.kernel, heads)
        below = [_head(value, i, heads).kernel @ part for i, part in enumerate(slices)]
        shift = Affine(np.concatenate(below), shift.bias)
    else:
        key.give(folded.get_layer(f"{name}_key"))
        value.give(folded.get_layer(f"{name}_value"))
    query.give(folded.get_layer(f"{name}_query"))
    (shift.centred() if centred else shift).give(folded.get_layer(f"{name}_output"))


def fold_feed_forward(trained: Any, folded: Any, name: str, *, centred: bool) -> None:
    """Set `{name}_ffn_in` and `{name}_ffn_out` of `folded` from those of `trained` and `{name}_ffn_norm`."""
    first, second = dense(trained, f"{name}_ffn_in"), dense(trained, f"{name}_ffn_out")
    norm = scale_and_shift(layer_of(trained, f"{name}_ffn_norm"), first.kernel.shape[0])
    norm.then(first).give(folded.get_layer(f"{name}_ffn_in"))
    (second.centred() if centred else second).give(folded.get_layer(f"{name}_ffn_out"))


def copy_layer(trained: Any, folded: Any, name: str) -> None:
    """Give layer `name` of `folded` the weights of its namesake."""
    folded.get_layer(name).set_weights(trained.get_layer(name).get_weights())


def dense(model: Any, name: str) -> Affine:
    """Return what Dense layer `name` of `model` computes before its activation."""
    layer = model.get_layer(name)
    kernel = _of(layer.kernel)
    return Affine(kernel, _of(layer.bias) if layer.use_bias else np.zeros(kernel.shape[1]))


def layer_of(model: Any, name: str) -> Any:
    """Return layer `name` of `model`, None where there is none."""
    return next((layer for layer in model.layers if layer.name == name), None)


def _head(affine: Affine, index: int, heads: int) -> Affine:
    return Affine(np.split(affine.kernel, heads, axis=1)[index], np.split(affine.bias, heads)[index])


def _turned(affine: Affine) -> Affine:
    return Affine(affine.kernel.T, np.zeros(affine.kernel.shape[0]))


def _beside(parts: list[Affine]) -> Affine:
    return Affine(
        np.concatenate([part.kernel for part in parts], axis=1), np.concatenate([part.bias for part in parts])
    )


def _of(variable: Any) -> Array:
    return np.asarray(variable.numpy(), np.float64)
