"""Stores item codes in a byte each: no converter does, since rows are looked up by int32.

Codes become a constant of uint8 and a CAST in front of whoever reads them, which takes their width again for
as long as a run lasts, and a few instructions each.
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgepack.convert import flatbuffer
from edgepack.convert import tflite_edit as edit
from edgepack.convert.onnx_graph import Graph

_FEWEST = 64
"""Below it the operator takes more bytes than it saves."""
_INT32 = schema.TensorType.INT32


def in_tflite(model: bytes) -> bytes:
    """Return a .tflite file whose GATHERs read constants of small whole numbers from a byte each."""
    read_model = flatbuffer.read(model)
    found = [change for graph in read_model.subgraphs for change in _changes(read_model, graph)]
    for graph, codes, readers in found:
        _narrow(read_model, graph, codes, readers)
    return flatbuffer.write(read_model) if found else model


def in_onnx(graph: Graph) -> Graph:
    """Return the graph with the same done to its Gathers."""
    gathered = {name for node in graph.nodes if node.op_type == "Gather" for name in node.input}
    narrow = {name: a for name, a in graph.weights.items() if name in gathered and _are_codes(a)}
    if not narrow:
        return graph
    kinds = {np.dtype(np.int32): TensorProto.INT32, np.dtype(np.int64): TensorProto.INT64}
    bytewise = {f"{name}/codes": array.astype(np.uint8) for name, array in narrow.items()}
    casts = [helper.make_node("Cast", [f"{n}/codes"], [n], to=kinds[a.dtype]) for n, a in narrow.items()]
    kept = {name: array for name, array in graph.weights.items() if name not in narrow}
    return graph._replace(nodes=[*casts, *graph.nodes], weights=kept | bytewise)


def has_codes(graph: Graph) -> bool:
    """Say whether `in_onnx` found codes in the graph."""
    cast = (graph.weights.get(node.input[0]) for node in graph.nodes if node.op_type == "Cast")
    return any(array is not None and array.dtype == np.uint8 for array in cast)


def _are_codes(values: NDArray[Any]) -> bool:
    whole = values.dtype in (np.int32, np.int64) and values.ndim == 1 and values.size >= _FEWEST
    return whole and int(values.min()) >= 0 and int(values.max()) < 256


def _changes(model: Any, graph: Any) -> list[tuple[Any, NDArray[np.int32], list[int]]]:
    """Return the graph, codes and tensors for each content: look-up and scores may have a copy each."""
    by_content: dict[bytes, tuple[Any, NDArray[np.int32], list[int]]] = {}
    gathers = [one for one in graph.operators if flatbuffer.operator_name(model, one) == "GATHER"]
    for index in dict.fromkeys(int(index) for one in gathers for index in one.inputs):
        tensor = graph.tensors[index]
        if tensor.type == _INT32 and flatbuffer.is_constant(model, tensor):
            stored = bytes(model.buffers[tensor.buffer].data)
            values = np.frombuffer(stored, np.int32).reshape(tuple(tensor.shape))
            if _are_codes(values):
                by_content.setdefault(stored, (graph, values, []))[2].append(index)
    return list(by_content.values())


def _narrow(model: Any, graph: Any, codes: NDArray[np.int32], readers: list[int]) -> None:
    stored = edit.constant(model, graph, codes.astype(np.uint8))
    graph.tensors[stored].name = b"codes"
    wide = edit.tensor_like(graph, readers[0], b"", _INT32)
    first = next(one for one in graph.operators if set(readers) & {int(i) for i in one.inputs})
    graph.tensors[wide].name = graph.tensors[first.outputs[0]].name + b"_codes"
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = schema.TensorType.UINT8, _INT32
    for one in graph.operators:
        one.inputs = edit.indices(*(wide if int(i) in readers else int(i) for i in one.inputs))
    graph.operators.insert(0, edit.operator(model, schema.BuiltinOperator.CAST, 1, [stored], wide, cast))
    # What nobody reads now would stay in the file.
    left = {int(t.buffer) for i, t in enumerate(graph.tensors) if i not in readers}
    for buffer in {int(graph.tensors[index].buffer) for index in readers} - left:
        model.buffers[buffer].data = None
