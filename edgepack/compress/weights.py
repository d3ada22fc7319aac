"""Weights as a file: one array a variable, named "layer/variable", the same bytes for the same weights."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.errors import ConvertError
from edgepack.models.graphs import bare_name
from edgepack.store import write_atomic

# What TF-MOT's wrappers keep only for training.
_BOOKKEEPING = ("optimizer_step", "pruning_step", "mask", "threshold")


def save_weights(model: Any, path: Path) -> None:
    """Write all weights of `model`, ranges of its quantizers included, to `path` (.npz)."""
    stream = io.BytesIO()
    np.savez(stream, **{name: variable.numpy() for name, variable in sorted(_named(model).items())})
    write_atomic(path, stream.getvalue())


def load_weights(model: Any, path: Path) -> None:
    """Set the weights of `model`, wrapped or not, from what `save_weights` wrote for either.

    Ranges in the file that a plain model has no use for are passed over.
    Raises ConvertError when the file lacks a weight or has it in another shape.
    """
    with np.load(path, allow_pickle=False) as stored:
        for name, variable in _named(model).items():
            found = stored[name] if name in stored.files else None
            if found is None or found.shape != tuple(variable.shape):
                raise ConvertError(
                    str(path),
                    f"weight '{name}' has the shape {found.shape if found is not None else 'none'}",
                    allowed=f"model '{model.name}' needs {tuple(variable.shape)}",
                    remedy="Train again, or build the model with the hyper-parameters it was trained with.",
                )
            variable.assign(found)


def _named(model: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for layer in model.layers:
        for variable in layer.weights:
            last = variable.name.split("/")[-1].split(":")[0]
            may_be_a_wrappers = bare_name(layer.name) != layer.name and not variable.trainable
            if not (may_be_a_wrappers and last in _BOOKKEEPING):
                named[_unused(f"{bare_name(layer.name)}/{last}", named)] = variable
    return named


def _unused(name: str, taken: dict[str, Any]) -> str:
    # A layer made of layers (MultiHeadAttention, a nested model) has several weights of one name.
    numbered = (name if n == 1 else f"{name}#{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in numbered if candidate not in taken)
