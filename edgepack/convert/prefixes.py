"""Cuts the graph of a .tflite file after each operator: what one prefix costs more than the last is its last
operator's cost.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.convert import flatbuffer


def prefixes(model: bytes) -> Iterator[bytes]:
    """Yield files of the first 1, 2 … n operators of the main graph, in the file's order.

    A prefix puts out every tensor that the rest of the graph was waiting for. With its last operator's
    result alone, runtimes would leave out what that one does not need, and charge it to a later one.
    Raises ConvertError when `model` is no .tflite file.
    """
    whole = flatbuffer.read(model)
    for count in range(1, len(whole.subgraphs[0].operators) + 1):
        yield flatbuffer.write(_prefix(whole, count))


def _prefix(whole: Any, count: int) -> Any:
    model, graph = copy.copy(whole), copy.copy(whole.subgraphs[0])
    graph.operators = graph.operators[:count]
    graph.outputs = np.array(_awaited(whole.subgraphs[0], count), np.int32)
    model.subgraphs = [graph, *whole.subgraphs[1:]]
    model.signatureDefs, model.metadata = None, None
    if len(model.subgraphs) == 1:
        model.buffers = _used_buffers(model, graph)
    return model


def _awaited(graph: Any, count: int) -> list[int]:
    made = {int(index) for operator in graph.operators[:count] for index in operator.outputs}
    later = {int(index) for operator in graph.operators[count:] for index in operator.inputs}
    return sorted(made & (later | {int(index) for index in graph.outputs}))


def _used_buffers(model: Any, graph: Any) -> list[Any]:
    """Return the buffers with those emptied that no operator of `graph` reads: they need not be written."""
    read = {int(index) for operator in graph.operators for index in operator.inputs if index >= 0}
    used = {int(graph.tensors[index].buffer) for index in read}
    return [buffer if number in used else schema.BufferT() for number, buffer in enumerate(model.buffers)]
