"""Stores the scales of a hashed table once in an int8 .tflite file.

They are looked up for the history and multiplied by for the scores. The converter takes the range of the one
from what calibration looked up and that of the other from all of them, and so writes them twice.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgepack.convert import flatbuffer
from edgepack.convert import tflite_edit as edit

_INT8 = schema.TensorType.INT8


def scales_once(model: bytes) -> bytes:
    """Return the file with look-ups in the very scales that scores are multiplied by."""
    read_model = flatbuffer.read(model)
    found = [
        (graph, look_up, scales)
        for graph in read_model.subgraphs
        for look_up in _named(read_model, graph, "GATHER")
        for scales in _columns(read_model, graph)
        if _is_alike(read_model, graph, int(look_up.inputs[0]), scales)
    ]
    for graph, look_up, scales in found:
        look_up.inputs = edit.indices(scales, *look_up.inputs[1:])
        graph.tensors[look_up.outputs[0]].quantization = graph.tensors[scales].quantization
    return flatbuffer.write(read_model) if found else model


def _named(model: Any, graph: Any, name: str) -> list[Any]:
    return [one for one in graph.operators if flatbuffer.operator_name(model, one) == name]


def _columns(model: Any, graph: Any) -> list[int]:
    """Return the int8 constants of one column that something is multiplied by."""
    read = [int(index) for one in _named(model, graph, "MUL") for index in one.inputs]
    return [
        index
        for index in dict.fromkeys(read)
        if _is_int8(model, graph, index)
        and len(graph.tensors[index].shape) == 2
        and graph.tensors[index].shape[1] == 1
    ]


def _is_int8(model: Any, graph: Any, index: int) -> bool:
    return graph.tensors[index].type == _INT8 and flatbuffer.is_constant(model, graph.tensors[index])


def _is_alike(model: Any, graph: Any, table: int, scales: int) -> bool:
    """Say whether two constants are the same numbers, each to within a step of its own."""
    one, other = graph.tensors[table], graph.tensors[scales]
    if table == scales or not _is_int8(model, graph, table) or tuple(one.shape) != tuple(other.shape):
        return False
    steps = edit.scale_of(one) + edit.scale_of(other)
    inside = np.abs(_levels(model, one)) < 127  # beyond what was looked up the table is cut off
    apart = np.abs(_numbers(model, one) - _numbers(model, other))
    return bool((apart[inside] <= steps).all())


def _levels(model: Any, tensor: Any) -> NDArray[np.int64]:
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.int8).astype(np.int64)


def _numbers(model: Any, tensor: Any) -> NDArray[np.float64]:
    return np.asarray((_levels(model, tensor) - edit.zero_point_of(tensor)) * edit.scale_of(tensor))
