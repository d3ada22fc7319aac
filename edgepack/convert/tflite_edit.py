"""Small changes to a .tflite graph in memory: constants, tensors and operators of its own."""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgepack.convert import flatbuffer

_Type = schema.TensorType
_CONSTANT_TYPES = {
    "float32": _Type.FLOAT32,
    "int32": _Type.INT32,
    "int8": _Type.INT8,
    "uint8": _Type.UINT8,
}


def constant(model: Any, graph: Any, values: NDArray[Any], scale: float | None = None) -> int:
    """Add a constant: float32, int32, uint8, or int8 with its `scale` and the zero point 0."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.type = flatbuffer.ADDED, _CONSTANT_TYPES[values.dtype.name]
    tensor.shape, tensor.buffer = indices(*values.shape), len(model.buffers) - 1
    if scale is not None:
        quantize(tensor, scale, 0)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def tensor_like(
    graph: Any, like: int, suffix: bytes, kind: int, scale: float | None = None, zero_point: int = 0
) -> int:
    """Add a tensor of type `kind` with the shape and, a `suffix` after it, the name of tensor `like`."""
    tensor = copy.copy(graph.tensors[like])
    tensor.name, tensor.type, tensor.buffer, tensor.quantization = tensor.name + suffix, kind, 0, None
    tensor.shapeSignature = None
    if scale is not None:
        quantize(tensor, scale, zero_point)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def one_each(graph: Any, like: int, suffix: bytes) -> int:
    """Add a float32 tensor of the shape that a reduction of the last axis leaves."""
    index = tensor_like(graph, like, suffix, _Type.FLOAT32)
    graph.tensors[index].shape = indices(*graph.tensors[like].shape[:-1], 1)
    return index


def rescaled(graph: Any, index: int, by: float) -> int:
    """Return a copy of constant `index`, for it may have other readers, whose counts are worth less."""
    tensor = copy.copy(graph.tensors[index])
    quantize(tensor, scale_of(tensor) / by, zero_point_of(tensor))
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def quantize(tensor: Any, scale: float, zero_point: int) -> None:
    """Give a tensor one scale and zero point."""
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero_point], np.int64)


def scale_of(tensor: Any) -> float:
    """Return the scale of a tensor that has one."""
    return float(tensor.quantization.scale[0])


def zero_point_of(tensor: Any) -> int:
    """Return the zero point of a tensor that has one."""
    return int(tensor.quantization.zeroPoint[0])


def indices(*tensors: int) -> Any:
    """Return numbers of tensors, or a shape, as the schema wants them."""
    return np.array(tensors, np.int32)


def operator(model: Any, code: int, version: int, inputs: list[int], output: int, options: Any = None) -> Any:
    """Return an operator of builtin `code` for the graph to take."""
    made = schema.OperatorT()
    made.opcodeIndex = flatbuffer.operator_code(model, code, version)
    made.inputs, made.outputs = indices(*inputs), indices(output)
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        made.builtinOptions = options
        made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    return made


def replace(graph: Any, old: Any, *new: Any) -> None:
    """Put operators into the place of an old one."""
    at = graph.operators.index(old)
    graph.operators[at : at + 1] = new
