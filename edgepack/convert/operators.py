"""What a .tflite file says of each of its operators: kind, layer, shapes, multiplications."""

import math
from collections import Counter
from typing import Any

from edgepack.convert import flatbuffer
from edgepack.results import Operator

# Their weights are [outputs, ...]: all axes but the first are summed over.
_WEIGHTED = ("FULLY_CONNECTED", "CONV_2D")


def operators(model: bytes) -> tuple[Operator, ...]:
    """Return the operators of the main graph in the file's order.

    Raises ConvertError when `model` is no .tflite file.
    """
    read_model = flatbuffer.read(model)
    graph = read_model.subgraphs[0]
    layers = _layers([_path(read_model, graph, operator) for operator in graph.operators])
    return tuple(
        _described(read_model, graph, operator, layer)
        for operator, layer in zip(graph.operators, layers, strict=True)
    )


def _described(model: Any, graph: Any, operator: Any, layer: str) -> Operator:
    made = graph.tensors[operator.outputs[0]] if len(operator.outputs) else None
    kind = flatbuffer.operator_name(model, operator)
    inputs = [int(index) for index in operator.inputs if index >= 0]
    return Operator(
        kind=kind,
        layer=layer,
        inputs=tuple(i for i in inputs if not flatbuffer.is_constant(model, graph.tensors[i])),
        outputs=tuple(int(index) for index in operator.outputs),
        shape=() if made is None else _shape(made),
        dtype="" if made is None else flatbuffer.type_name(made),
        static=not any(_is_dynamic(graph.tensors[index]) for index in (*inputs, *operator.outputs)),
        multiplications=_multiplications(graph, operator, kind),
    )


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(size) for size in tensor.shape)


def _is_dynamic(tensor: Any) -> bool:
    signature = tensor.shapeSignature
    return signature is not None and any(size < 0 for size in signature)


def _multiplications(graph: Any, operator: Any, kind: str) -> int | None:
    if kind == "BATCH_MATMUL":
        left = _shape(graph.tensors[operator.inputs[0]])
        depth = left[-2] if operator.builtinOptions.adjX else left[-1]
        return math.prod(_shape(graph.tensors[operator.outputs[0]])) * depth
    if kind not in _WEIGHTED:
        return None
    weights = _shape(graph.tensors[operator.inputs[1]])
    return math.prod(_shape(graph.tensors[operator.outputs[0]])) * math.prod(weights[1:])


def _path(model: Any, graph: Any, operator: Any) -> list[str]:
    """Return the path of the first output; of names that a converter joined, the first."""
    if not len(operator.outputs):
        return [""]
    return flatbuffer.path_of(model, graph, int(operator.outputs[0])).split(";")[0].split("/")


def _layers(paths: list[list[str]]) -> list[str]:
    """Return the part of each path that tells layers apart: the first that is not the same in most paths."""
    depth = 0
    long = [path for path in paths if len(path) > 1]
    while long and Counter(path[depth] for path in long).most_common(1)[0][1] > 0.9 * len(long):
        depth += 1
        long = [path for path in long if len(path) > depth + 1]
    return [(path[depth] if depth < len(path) else path[-1]).removeprefix("quant_") for path in paths]
