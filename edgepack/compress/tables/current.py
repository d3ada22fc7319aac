"""What a table's rows are while a model is trained: as they are, or as the model rounds them."""

from collections.abc import Callable
from typing import Any

from edgepack.models.graphs import bare_name


def current(model: Any, table: str) -> Callable[[], Any]:
    """Return a function that gives the rows of Embedding `table`, float32 [rows, d], rounded if they are.

    For the loss of an encoder, which scores against the table outside of the graph: call it after the
    model, whose forward pass sets the range. Gradients pass straight through the rounding.
    """
    layer = next(layer for layer in model.layers if bare_name(layer.name) == table)
    if not hasattr(layer, "_weight_vars"):
        return lambda: layer.embeddings
    weight, quantizer, ranges = layer._weight_vars[0]
    return lambda: quantizer(weight, False, weights=ranges)
