"""Pruning with TF-MOT: what is least in kernels and tables becomes zeros, which stay in training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgepack.compress import importance
from edgepack.compress.recipes import Pruning
from edgepack.compress.sensitivity import Weights
from edgepack.compress.tfmot import tfmot
from edgepack.keras2 import keras
from edgepack.models.graphs import transfer

_sparsity = tfmot.sparsity.keras
_MASK_UPDATES = 20
_NEVER = 2**31 - 1  # steps
PRUNED = {keras.layers.Dense: "kernel", keras.layers.Embedding: "embeddings"}


def prune(
    model: Any, settings: Pruning, *, steps_per_epoch: int, shares: Mapping[str, float] | None = None
) -> Any:
    """Return a copy of `model` whose layers prune themselves while it is trained: Dense and Embedding, and
    classes of their own whose method `get_prunable_weights` names a weight.

    `model` is a functional Keras 2 model, `steps_per_epoch` the number of optimizer steps in an epoch of
    the training to come. `shares` gives each layer a share of zeros of its own. No callback is needed: each
    wrapper counts its training steps in a variable of its own, which a checkpoint of all weights keeps.
    `strip` ends it.
    """

    def wrapped(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        if not _prunable(layer):
            return copy
        share = settings.zero_share if shares is None else shares[layer.name]
        return _sparsity.prune_low_magnitude(copy, **_rules(settings, share, steps_per_epoch))

    pruned = keras.models.clone_model(model, clone_function=wrapped)
    transfer(model, pruned, table="", tied=None)
    for layer in _wrappers(pruned):
        # The wrapper counts up before it looks, and refuses to prune at step 0.
        layer.pruning_step.assign(0)
    return pruned


def zeroed(model: Any, worth: Weights, zero_share: float) -> dict[str, float]:
    """Put zeros where the weights of `model` are worth least, and return each layer's share of them.

    `worth` is of `importance.importance`. One weight a layer, as far as layers are that can be pruned.
    """
    prunable = {layer.name: weight for layer in model.layers for weight in _prunable(layer)[:1]}
    own = {name: worth[f"{name}/{_variable(weight)}"] for name, weight in prunable.items()}
    shares = importance.zero_shares(own, zero_share)
    for name, weight in prunable.items():
        weight.assign(importance.without_least(weight.numpy(), own[name], shares[name]))
    return shares


def strip(pruned: Any, plain: Any) -> None:
    """Copy the weights of `pruned`, masks applied for the last time, into its unwrapped twin `plain`."""
    for layer in _wrappers(pruned):
        for weight, mask, _ in layer.pruning_vars:
            weight.assign(weight * mask)
    transfer(pruned, plain, table="", tied=None)


def zero_share(model: Any) -> dict[str, float]:
    """Return the share of zeros of each weight of a plain model that is pruned, by "layer/variable"."""
    return {
        f"{layer.name}/{_variable(weight)}": float(np.mean(weight.numpy() == 0))
        for layer in model.layers
        for weight in _prunable(layer)
    }


def _prunable(layer: Any) -> list[Any]:
    """Return the weights of `layer` that pruning may take, by TF-MOT's protocol for a class of one's own."""
    if type(layer) in PRUNED:
        return [getattr(layer, PRUNED[type(layer)])]
    own = getattr(layer, "get_prunable_weights", None)
    return list(own()) if own is not None else []


def _variable(weight: Any) -> str:
    name: str = weight.name.split("/")[-1].split(":")[0]
    return name


def _wrappers(model: Any) -> list[Any]:
    return [layer for layer in model.layers if hasattr(layer, "pruning_vars")]


def _rules(settings: Pruning, zero_share: float, steps_per_epoch: int) -> dict[str, Any]:
    if settings.schedule == "polynomial":
        # The last update must fall on the last step of the schedule, or the aim is never reached.
        frequency = max(1, settings.epochs * steps_per_epoch // 2 // _MASK_UPDATES)
        schedule = _sparsity.PolynomialDecay(
            0.0, zero_share, 0, frequency * _MASK_UPDATES, frequency=frequency
        )
        return {"pruning_schedule": schedule}
    # Masks go by magnitude: after the first step they would not be the zeros that `zeroed` chose.
    frequency = _NEVER if settings.criterion == "first-order" else max(1, steps_per_epoch // 2)
    schedule = _sparsity.ConstantSparsity(zero_share, 1, frequency=frequency)
    if settings.schedule == "2:4":
        return {"pruning_schedule": schedule, "sparsity_m_by_n": (2, 4)}
    return {"pruning_schedule": schedule}
