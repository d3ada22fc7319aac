"""Replaces the int8 operators of a .tflite file whose results depend on the processor by ones that do not.

LiteRT's int8 BATCH_MATMUL rounds negative ties up on ARM and down on x86, and on ARM cores without dot
products two neighbouring -128 x -128 run over. Its int8 SOFTMAX is one algorithm on ARM, another on x86.
The other operators of an int8 recommender give the same bytes on both.
"""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.convert import flatbuffer

_Code = schema.BuiltinOperator
_Type = schema.TensorType
# What TFLite fixes for the output of an int8 LOG_SOFTMAX: steps of 1/16 from -255/16 to 0.
_LOG_SCALE, _LOG_ZERO_POINT = 1 / 16, 127
# Operators that give their result at whatever scale and zero point the output asks for.
_ANY_SCALE = ("FULLY_CONNECTED", "EXP", "ADD", "MUL")


def portable(model: bytes) -> bytes:
    """Return the file with the same meaning and int8 results that every processor agrees on.

    BATCH_MATMUL to int8 becomes one to int32, whose sums are exact, and a rounding to int8 of its own; its
    operands get the zero point 0 that this takes. SOFTMAX becomes LOG_SOFTMAX and EXP, two look-ups. A
    file that has neither in int8 comes back as it is.
    """
    read_model = flatbuffer.read(model)
    found = [
        (graph, operator, _REWRITES[flatbuffer.operator_name(read_model, operator)])
        for graph in read_model.subgraphs
        for operator in graph.operators
        if flatbuffer.operator_name(read_model, operator) in _REWRITES and _is_int8(graph, operator)
    ]
    # A SOFTMAX has to go first: EXP can give the scale that the BATCH_MATMUL after it asks for.
    for graph, operator, rewrite in sorted(found, key=lambda one: one[2] is _exact_matmul):
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
    matmul.inputs = np.array([_symmetric(model, graph, int(i), matmul) for i in matmul.inputs], np.int32)
    unit = float(np.prod([graph.tensors[i].quantization.scale[0] for i in matmul.inputs], dtype=np.float64))
    sums = _tensor(graph, made, b"_sums", _Type.INT32, unit)
    matmul.outputs, matmul.opcodeIndex = np.array([sums], np.int32), _code(model, _Code.BATCH_MATMUL, 3)

    # Rounded in units of one product, then said to be `unit` times that: 1 is the only factor that an int8
    # MUL takes exactly. QUANTIZE from int32 does it in one step and 20 times the instructions.
    quantization = graph.tensors[made].quantization
    scale, zero_point = float(quantization.scale[0]) / unit, int(quantization.zeroPoint[0])
    exact = _tensor(graph, made, b"_exact", _Type.FLOAT32)
    rounded = _tensor(graph, made, b"_rounded", _Type.INT8, scale, zero_point)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = _Type.INT32, _Type.FLOAT32
    _replace(
        graph,
        matmul,
        matmul,
        _operator(model, _Code.CAST, 1, [sums], exact, cast),
        _operator(model, _Code.QUANTIZE, 1, [exact], rounded),
        _operator(model, _Code.MUL, 2, [rounded, _one(model, graph, unit)], made, schema.MulOptionsT()),
    )


def _symmetric(model: Any, graph: Any, index: int, user: Any) -> int:
    """Return the tensor `index`, or what holds its values for `user`, with zero point 0."""
    tensor = graph.tensors[index]
    scale, zero_point = float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
    if zero_point == 0:
        return index
    symmetric = scale * max(127 - zero_point, 128 + zero_point) / 127
    made_by = [o for o in graph.operators if index in o.outputs]
    used_by = [o for o in graph.operators if index in o.inputs]
    if made_by and flatbuffer.operator_name(model, made_by[0]) in _ANY_SCALE and len(used_by) == 1:
        _quantize(tensor, symmetric, 0)
        return index
    centred = _tensor(graph, index, b"_centred", _Type.INT8, symmetric)
    _replace(graph, user, _operator(model, _Code.QUANTIZE, 2, [index], centred), user)
    return centred


def _one(model: Any, graph: Any, unit: float) -> int:
    """Return a constant that is 1 x `unit`."""
    buffer = schema.BufferT()
    buffer.data = np.ones(1, np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape = b"unit", _Type.INT8, np.zeros(0, np.int32)
    tensor.buffer = len(model.buffers) - 1
    _quantize(tensor, unit, 0)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _tensor(
    graph: Any, like: int, suffix: bytes, kind: int, scale: float | None = None, zero_point: int = 0
) -> int:
    tensor = copy.copy(graph.tensors[like])
    tensor.name, tensor.type, tensor.buffer, tensor.quantization = tensor.name + suffix, kind, 0, None
    if scale is not None:
        _quantize(tensor, scale, zero_point)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _quantize(tensor: Any, scale: float, zero_point: int) -> None:
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero_point], np.int64)


def _operator(
    model: Any, code: int, version: int, inputs: list[int], output: int, options: Any = None
) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, code, version)
    operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptions = options
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
    return operator


def _code(model: Any, builtin: int, version: int) -> int:
    """Return the index of an operator code, added where it is missing."""
    for index, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (builtin, version):
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _replace(graph: Any, old: Any, *new: Any) -> None:
    at = graph.operators.index(old)
    graph.operators[at : at + 1] = new


_REWRITES = {"SOFTMAX": _softmax_by_logarithm, "BATCH_MATMUL": _exact_matmul}
