"""Weight clustering: each Dense kernel and table keeps a few distinct values, which then train as one.

Values come from k-means, and every weight stays with its value while these are trained (Han et al., "Deep
Compression", ICLR 2016). TF-MOT's own wrapper finds the nearest of all values for every weight in every
step, which takes as many copies of a table as there are clusters, and reads zeros and values off what a
layer was built with. Here nothing is remembered: equal weights belong together and get one gradient.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.prune import PRUNED
from edgepack.compress.schemes import shared_scheme
from edgepack.compress.tfmot import tfmot
from edgepack.errors import ConvertError
from edgepack.keras2 import keras
from edgepack.models.graphs import transfer

_ROUNDS = 40


def centroids(values: NDArray[np.float32], clusters: int, *, keep_zeros: bool) -> NDArray[np.float32]:
    """Return at most `clusters` values, sorted, that k-means finds for `values` (of any shape).

    Lloyd's rounds start from quantiles, so that the result depends on the values alone. With `keep_zeros`
    zero is one of them, and no other value is drawn towards it.
    """
    flat = np.sort(values.ravel().astype(np.float64))
    flat = flat[flat != 0] if keep_zeros else flat
    count = clusters - keep_zeros
    found = np.unique(np.quantile(flat, (np.arange(count) + 0.5) / count)) if flat.size else flat
    for _ in range(_ROUNDS):
        members = np.searchsorted((found[1:] + found[:-1]) / 2, flat)
        sizes = np.bincount(members, minlength=len(found))
        found = (np.bincount(members, flat, len(found)) / np.maximum(sizes, 1))[sizes > 0]
    zero = [0.0] if keep_zeros else []
    return np.asarray(np.unique(np.concatenate([found, zero])), np.float32)


def nearest(values: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `values`, each moved to its nearest centroid; zero stays where it is one of them."""
    moved = centroids[np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)]
    return np.asarray(np.where(values == 0, 0, moved) if 0 in centroids else moved, np.float32)


def cluster(model: Any, clusters: int, *, keep_zeros: bool) -> Any:
    """Give every Dense kernel and table of `model` at most `clusters` values, in place.

    Returns a copy to be trained, in which equal weights stay equal; `strip` ends it.
    """
    for layer in model.layers:
        if type(layer) in PRUNED:
            weight = layer.weights[0]
            values = weight.numpy()
            weight.assign(nearest(values, centroids(values, clusters, keep_zeros=keep_zeros)))

    def wrapped(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        if type(layer) not in PRUNED:
            return copy
        return tfmot.quantization.keras.QuantizeWrapperV2(copy, shared_scheme(PRUNED[type(layer)]))

    copy = keras.models.clone_model(model, clone_function=wrapped)
    transfer(model, copy, table="", tied=None)
    return copy


def strip(clustered: Any, plain: Any, clusters: int) -> None:
    """Copy the weights of `clustered` into its unwrapped twin `plain`, and make sure of their number."""
    transfer(clustered, plain, table="", tied=None)
    require(plain, clusters)


def distinct(model: Any) -> dict[str, int]:
    """Return how many values each Dense kernel and table of a plain model has, by "layer/variable"."""
    return {
        f"{layer.name}/{PRUNED[type(layer)]}": len(np.unique(layer.get_weights()[0]))
        for layer in model.layers
        if type(layer) in PRUNED
    }


def require(model: Any, clusters: int) -> None:
    """Raise ConvertError naming a Dense kernel or table of a plain model with more than `clusters` values."""
    for name, count in distinct(model).items():
        if count > clusters:
            raise ConvertError(
                f"weights {name}",
                f"they have {count:,} distinct values after training",
                allowed=f"the recipe promises {clusters}",
                remedy="Report this as a bug, or use a recipe without clustering.",
            )
