"""Replaces the int8 operators of a .tflite file whose results depend on the processor by ones that do not.

LiteRT's int8 BATCH_MATMUL rounds negative ties up on ARM and down on x86, and on ARM cores without dot
products two neighbouring -128 x -128 run over. Its int8 SOFTMAX is one algorithm on ARM, another on x86; what
LOG_SOFTMAX and MEAN give near the middle of two steps differs. The other operators of an int8 recommender
give the same bytes on both.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgepack.convert import flatbuffer

_Code = schema.BuiltinOperator
_Type = schema.TensorType
# They take an operand of any scale.
_ANY_SCALE = {"ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "FULLY_CONNECTED", "RSQRT"}
_NEAR_THE_MIDDLE, _TRIES = 0.0003, 400
_CONSTANT_TYPES = {"float32": _Type.FLOAT32, "int32": _Type.INT32, "int8": _Type.INT8}
_STEP = 1 / 32
"""Of what goes into the exponential: from 0 down to -255/32, below which a weight of 1/256 is none."""

Rewrite = Callable[[Any, Any, Any], None]


def portable(model: bytes) -> bytes:
    """Return the file with the same meaning and int8 results that every processor agrees on.

    BATCH_MATMUL becomes one of whole numbers in float32, which XNNPACK multiplies and LiteRT's int8 and int32
    kernels do in several times the instructions. Its sums are exact in any order up to 2^24 (258 terms,
    whatever the operands hold); what they are worth is multiplied in and rounded to int8 after it. SOFTMAX
    becomes its steps, each exact or rounded once; MEAN gets another scale where its result is a near thing,
    and RSQRT is looked up. A file that has none of them in int8 comes back as it is.
    """
    read_model = flatbuffer.read(model)
    found = [
        (rewrite, graph, operator)
        for graph in read_model.subgraphs
        for operator in graph.operators
        if (rewrite := _rewrite_of(read_model, graph, operator)) is not None
    ]
    for rewrite, graph, operator in found:
        rewrite(read_model, graph, operator)
    return flatbuffer.write(read_model) if found else model


def _rewrite_of(model: Any, graph: Any, operator: Any) -> Rewrite | None:
    """Return what replaces or settles an operator, None when it may stay."""
    name = flatbuffer.operator_name(model, operator)
    if name not in _REWRITES:
        return None
    # The second input of a MEAN names its axes.
    values = (*operator.inputs[: 1 if name == "MEAN" else None], *operator.outputs)
    return _REWRITES[name] if all(graph.tensors[i].type == _Type.INT8 for i in values) else None


def _exact_softmax(model: Any, graph: Any, softmax: Any) -> None:
    """Powers come from a table of 256 bytes, their sum is exact, and a division rounds once."""
    logits, weights = int(softmax.inputs[0]), int(softmax.outputs[0])
    axis = _constant(model, graph, _indices(len(graph.tensors[logits].shape) - 1))
    real, less, parts, shares = (
        _tensor(graph, weights, suffix, _Type.FLOAT32)
        for suffix in (b"_real", b"_less", b"_parts", b"_shares")
    )
    largest, total = (_one_each(graph, weights, suffix) for suffix in (b"_largest", b"_total"))
    steps = _tensor(graph, weights, b"_steps", _Type.INT8, _STEP, 127)
    powers = _tensor(graph, weights, b"_powers", _Type.INT8, 1 / 256, -128)
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    _replace(
        graph,
        softmax,
        _operator(model, _Code.DEQUANTIZE, 2, [logits], real),
        _operator(model, _Code.REDUCE_MAX, 1, [real, axis], largest, keep),
        _operator(model, _Code.SUB, 1, [real, largest], less, schema.SubOptionsT()),
        _operator(model, _Code.QUANTIZE, 1, [less], steps),
        _operator(model, _Code.EXP, 2, [steps], powers),
        _operator(model, _Code.DEQUANTIZE, 2, [powers], parts),
        _operator(model, _Code.SUM, 1, [parts, axis], total, keep),
        _operator(model, _Code.DIV, 1, [parts, total], shares, schema.DivOptionsT()),
        _operator(model, _Code.QUANTIZE, 1, [shares], weights),
    )


def _decided_mean(model: Any, graph: Any, mean: Any) -> None:
    """Widen the steps of a MEAN's result until no sum lies near the middle of two of them.

    There LiteRT on x86 rounds to the wrong side at distances of up to 0.00008 steps. It leaves the scale
    where a reader of the result could not follow, or none is found.
    """
    index, made = int(mean.inputs[0]), int(mean.outputs[0])
    readers = [flatbuffer.operator_name(model, one) for one in graph.operators if made in one.inputs]
    if made in graph.outputs or not set(readers) <= _ANY_SCALE:
        return
    given, result = graph.tensors[index], graph.tensors[made]
    terms = math.prod(given.shape) // math.prod(result.shape)
    low, high = (terms * (end - _zero_point(given)) for end in (-128, 127))
    values = np.arange(low, high + 1) * (np.float64(_scale(given)) / terms)
    for scale in np.float32(_scale(result)) * np.linspace(1, 1.02, _TRIES, dtype=np.float32):
        steps = values / np.float64(scale)
        steps = steps[np.abs(steps + _zero_point(result)) < 130]
        if np.abs(steps % 1 - 0.5).min() > _NEAR_THE_MIDDLE:
            _quantize(result, float(scale), _zero_point(result))
            return


def _looked_up_root(model: Any, graph: Any, root: Any) -> None:
    """An int8 RSQRT has 256 results; LiteRT works out each anew, in some 400 instructions."""
    index, made = int(root.inputs[0]), int(root.outputs[0])
    given, result = graph.tensors[index], graph.tensors[made]
    values = (np.arange(-128, 128) - _zero_point(given)) * np.float64(_scale(given))
    # Nothing below zero comes in; LiteRT's root of zero is the largest result.
    steps = 1 / np.sqrt(np.maximum(values, 1e-30)) / _scale(result) + _zero_point(result)
    results = np.round(np.clip(steps, -128, 127)).astype(np.int8)
    table = _constant(model, graph, results, _scale(result))
    _quantize(graph.tensors[table], _scale(result), _zero_point(result))
    counts, rows = (_tensor(graph, index, suffix, _Type.INT32) for suffix in (b"_counts", b"_rows"))
    first = _constant(model, graph, _indices(128).reshape(()))
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = _Type.INT8, _Type.INT32
    _replace(
        graph,
        root,
        _operator(model, _Code.CAST, 1, [index], counts, cast),
        _operator(model, _Code.ADD, 1, [counts, first], rows, schema.AddOptionsT()),
        _operator(model, _Code.GATHER, 2, [table, rows], made, schema.GatherOptionsT()),
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
    elif flatbuffer.is_constant(model, graph.tensors[index]):
        counts = _rescaled(graph, index, worth)
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
    """Add a constant: float32, int32, or int8 with its `scale` and the zero point 0."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.type = flatbuffer.ADDED, _CONSTANT_TYPES[values.dtype.name]
    tensor.shape, tensor.buffer = _indices(*values.shape), len(model.buffers) - 1
    if scale is not None:
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


def _one_each(graph: Any, like: int, suffix: bytes) -> int:
    """Add a float32 tensor of the shape that a reduction of the last axis leaves."""
    index = _tensor(graph, like, suffix, _Type.FLOAT32)
    graph.tensors[index].shape = _indices(*graph.tensors[like].shape[:-1], 1)
    return index


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


_REWRITES: dict[str, Rewrite] = {
    "SOFTMAX": _exact_softmax,
    "BATCH_MATMUL": _exact_matmul,
    "MEAN": _decided_mean,
    "RSQRT": _looked_up_root,
}
