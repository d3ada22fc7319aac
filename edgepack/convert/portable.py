"""Replaces the int8 operators of a .tflite file whose results depend on the processor by ones that do not.

LiteRT's int8 BATCH_MATMUL rounds negative ties up on ARM and down on x86, and on ARM cores without dot
products two neighbouring -128 x -128 run over. Its int8 SOFTMAX is one algorithm on ARM, another on x86.
The other operators of an int8 recommender give the same bytes on both.
"""

import copy
import math
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgepack.convert import flatbuffer

_Code = schema.BuiltinOperator
_Type = schema.TensorType
# What TFLite fixes for the output of an int8 LOG_SOFTMAX: steps of 1/16 from -255/16 to 0.
_LOG_SCALE, _LOG_ZERO_POINT = 1 / 16, 127


def portable(model: bytes) -> bytes:
    """Return the file with the same meaning and int8 results that every processor agrees on.

    BATCH_MATMUL becomes one of whole numbers in float32, which XNNPACK multiplies and LiteRT's int8 and int32
    kernels do in several times the instructions. Its sums are exact in any order up to 2^24 (258 terms,
    whatever the operands hold); what they are worth is multiplied in and rounded to int8 after it. SOFTMAX
    becomes LOG_SOFTMAX and EXP. A file that has neither in int8 comes back as it is.
    """
    read_model = flatbuffer.read(model)
    found = [
        (graph, operator, _REWRITES[flatbuffer.operator_name(read_model, operator)])
        for graph in read_model.subgraphs
        for operator in graph.operators
        if flatbuffer.operator_name(read_model, operator) in _REWRITES and _is_int8(graph, operator)
    ]
    for graph, operator, rewrite in found:
        rewrite(read_model, graph, operator)
    return flatbuffer.write(read_model) if found else model


def _is_int8(graph: Any, operator: Any) -> bool:
    return all(graph.tensors[i].type == _Type.INT8 for i in (*operator.inputs, *operator.outputs))


def _softmax_by_logarithm(model: Any, graph: Any, softmax: Any) -> None:
    weights = int(softmax.outputs[0])
    logarithm = _tensor(graph, weights, b"_log", _Type.INT8, _LOG_SCALE, _LOG_ZERO_POINT)
    _replace(
        graph,
        softmax,
        _operator(model, _Code.LOG_SOFTMAX, 2, list(softmax.inputs), logarithm),
        _operator(model, _Code.EXP, 2, [logarithm], weights),
    )


def _exact_matmul(model: Any, graph: Any, matmul: Any) -> None:
    made = int(matmul.outputs[0])
    before: list[Any] = []
    operands, worths = zip(
        *(_whole_numbers(model, graph, int(index), before) for index in matmul.inputs), strict=True
    )
    sums, values = (_tensor(graph, made, suffix, _Type.FLOAT32) for suffix in (b"_sums", b"_values"))
    product = copy.copy(matmul)
    product.opcodeIndex = flatbuffer.operator_code(model, _Code.BATCH_MATMUL, 1)
    product.inputs, product.outputs = _indices(*operands), _indices(sums)
    worth = _constant(model, graph, np.full((), np.prod(worths), np.float32))
    after = [
        _operator(model, _Code.MUL, 1, [sums, worth], values, schema.MulOptionsT()),
        _operator(model, _Code.QUANTIZE, 1, [values], made),
    ]
    _replace(graph, matmul, *before, product, *after)


def _whole_numbers(model: Any, graph: Any, index: int, operators: list[Any]) -> tuple[int, float]:
    """Return a float32 tensor of what int8 tensor `index` counts, and what a count is worth.

    What makes it is added to `operators`. Counts may come times a power of two, which is as exact.
    """
    worth, counts = _scale(graph.tensors[index]), index
    if math.frexp(worth)[0] == 0.5:
        worth = 1.0
    elif not _count_at_once(model, graph, index):
        counts = _tensor(graph, index, b"_counts", _Type.INT8, 1.0, _zero_point(graph.tensors[index]))
        one = _constant(model, graph, np.ones((), np.int8), 1 / worth)
        operators.append(_operator(model, _Code.MUL, 2, [index, one], counts, schema.MulOptionsT()))
    whole = _tensor(graph, index, b"_whole", _Type.FLOAT32)
    operators.append(_operator(model, _Code.DEQUANTIZE, 2, [counts], whole))
    return whole, worth


def _count_at_once(model: Any, graph: Any, index: int) -> bool:
    """Give tensor `index` the scale 1, if one operator alone reads it and another makes it with constants.

    The constants' scale takes it up, so that all bytes stay what they were.
    """
    makers = [o for o in graph.operators if index in o.outputs]
    readers = [o for o in graph.operators if index in o.inputs]
    maker = makers[0] if makers else None
    if len(readers) != 1 or index in graph.outputs or maker is None or not _is_linear(model, maker):
        return False
    constants = [int(i) for i in maker.inputs if i >= 0 and flatbuffer.is_constant(model, graph.tensors[i])]
    if not constants or any(len(graph.tensors[i].quantization.scale) != 1 for i in constants):
        return False
    scale, zero_point = _scale(graph.tensors[index]), _zero_point(graph.tensors[index])
    rescaled = {i: _rescaled(graph, i, scale) for i in constants}
    maker.inputs = _indices(*(rescaled.get(int(i), int(i)) for i in maker.inputs))
    _quantize(graph.tensors[index], 1.0, zero_point)
    return True


def _is_linear(model: Any, operator: Any) -> bool:
    return (
        flatbuffer.operator_name(model, operator) in ("FULLY_CONNECTED", "MUL")
        and operator.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.NONE
    )


def _rescaled(graph: Any, index: int, by: float) -> int:
    """Return a copy of constant `index`, for it may have other readers, whose counts are worth less."""
    tensor = copy.copy(graph.tensors[index])
    _quantize(tensor, _scale(tensor) / by, _zero_point(tensor))
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Any, graph: Any, values: NDArray[Any], scale: float | None = None) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.type = b"portable", _Type.FLOAT32
    tensor.shape, tensor.buffer = _indices(*values.shape), len(model.buffers) - 1
    if scale is not None:
        tensor.type = _Type.INT8
        _quantize(tensor, scale, 0)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _tensor(
    graph: Any, like: int, suffix: bytes, kind: int, scale: float | None = None, zero_point: int = 0
) -> int:
    tensor = copy.copy(graph.tensors[like])
    tensor.name, tensor.type, tensor.buffer, tensor.quantization = tensor.name + suffix, kind, 0, None
    tensor.shapeSignature = None
    if scale is not None:
        _quantize(tensor, scale, zero_point)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _quantize(tensor: Any, scale: float, zero_point: int) -> None:
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero_point], np.int64)


def _scale(tensor: Any) -> float:
    return float(tensor.quantization.scale[0])


def _zero_point(tensor: Any) -> int:
    return int(tensor.quantization.zeroPoint[0])


def _indices(*tensors: int) -> Any:
    return np.array(tensors, np.int32)


def _operator(
    model: Any, code: int, version: int, inputs: list[int], output: int, options: Any = None
) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = flatbuffer.operator_code(model, code, version)
    operator.inputs, operator.outputs = _indices(*inputs), _indices(output)
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    return operator


def _replace(graph: Any, old: Any, *new: Any) -> None:
    at = graph.operators.index(old)
    graph.operators[at : at + 1] = new


_REWRITES = {"SOFTMAX": _softmax_by_logarithm, "BATCH_MATMUL": _exact_matmul}
