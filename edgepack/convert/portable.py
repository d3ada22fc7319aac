"""Replaces the int8 operators of a .tflite file whose results depend on the processor by ones that do not.

LiteRT's int8 BATCH_MATMUL rounds negative ties up on ARM and down on x86, and on ARM cores without dot
products two neighbouring -128 x -128 run over. Its int8 SOFTMAX is one algorithm on ARM, another on x86.
The other operators of an int8 recommender give the same bytes on both.
"""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgepack.convert import flatbuffer

_Code = schema.BuiltinOperator
_Type = schema.TensorType
# What TFLite fixes for the output of an int8 LOG_SOFTMAX: steps of 1/16 from -255/16 to 0.
_LOG_SCALE, _LOG_ZERO_POINT = 1 / 16, 127
# Operators that give their result at whatever scale and zero point the output asks for.
_ANY_SCALE = ("FULLY_CONNECTED", "EXP", "ADD", "MUL")


def portable(model: bytes) -> bytes:
    """Return the file with the same meaning and int8 results that every processor agrees on.

    BATCH_MATMUL to int8 becomes one to int32, whose sums are exact (up to 2^24: 1,032 terms) and followed
    by a rounding of its own; its operands move to zero point 0. SOFTMAX becomes LOG_SOFTMAX and EXP. A
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
    left, right = (graph.tensors[int(index)] for index in matmul.inputs)
    is_one_sided = _zero_point(left) == -128 and not matmul.builtinOptions.adjX
    if is_one_sided:
        _halve(model, graph, matmul)
    else:
        _requantize(model, graph, matmul, 0, *_symmetric(left))
    _requantize(model, graph, matmul, 1, *_symmetric(right))
    _transpose_right(model, graph, matmul)
    left, right = (graph.tensors[int(index)] for index in matmul.inputs)
    unit = float(np.float64(_scale(left)) * _scale(right))
    sums = _tensor(graph, made, b"_sums", _Type.INT32, unit)
    matmul.outputs = _indices(sums)
    operators = [matmul]
    if is_one_sided:
        other_half, sums = _other_half(model, graph, matmul, unit)
        operators += other_half
    _replace(graph, matmul, *operators, *_rounding(model, graph, sums, made, unit))


def _halve(model: Any, graph: Any, matmul: Any) -> None:
    """Take half of its greatest value off the left operand, which has one sign, as attention weights do.

    At zero point 0 it would have 128 levels, so as a difference from the middle it keeps 255. The zero
    point itself must not say so: runtimes disagree on whether a product to int32 heeds it.
    """
    scale = _scale(graph.tensors[int(matmul.inputs[0])]) * 255 / 254
    _requantize(model, graph, matmul, 0, scale, -127)
    whole = int(matmul.inputs[0])
    scale = _scale(graph.tensors[whole])
    half = _constant(model, graph, np.full((), -127, np.int8), scale)
    less = _tensor(graph, whole, b"_less", _Type.INT8, scale)
    subtract = _operator(model, _Code.ADD, 2, [whole, half], less, schema.AddOptionsT())
    _replace(graph, matmul, subtract, matmul)
    matmul.inputs = _indices(less, matmul.inputs[1])


def _transpose_right(model: Any, graph: Any, matmul: Any) -> None:
    """Hand the right operand over by columns; BATCH_MATMUL itself transposes at six times the price."""
    if matmul.builtinOptions.adjY:
        return
    index = int(matmul.inputs[1])
    tensor = graph.tensors[index]
    axes = [*range(len(tensor.shape) - 2), len(tensor.shape) - 1, len(tensor.shape) - 2]
    columns = _tensor(graph, index, b"_columns", _Type.INT8, _scale(tensor))
    graph.tensors[columns].shape = _indices(*(tensor.shape[axis] for axis in axes))
    permutation = _constant(model, graph, _indices(*axes))
    options = schema.TransposeOptionsT()
    transpose = _operator(model, _Code.TRANSPOSE, 2, [index, permutation], columns, options)
    _replace(graph, matmul, transpose, matmul)
    matmul.inputs, matmul.builtinOptions.adjY = _indices(matmul.inputs[0], columns), True


def _other_half(model: Any, graph: Any, matmul: Any, unit: float) -> tuple[list[Any], int]:
    """Return operators that add what `_halve` left out, and the tensor that they make.

    sum l r = sum (l - h) r + h sum r, and the last term is the same for all rows of the left operand.
    """
    left, right = (graph.tensors[int(index)] for index in matmul.inputs)
    made = int(matmul.outputs[0])
    row = _constant(model, graph, np.full((1, left.shape[-1]), 127, np.int8), _scale(left))
    rest = _tensor(graph, made, b"_rest", _Type.INT32, unit)
    graph.tensors[rest].shape = _indices(*right.shape[:-2], 1, graph.tensors[made].shape[-1])
    of_row = copy.copy(matmul)
    of_row.inputs, of_row.outputs = _indices(row, matmul.inputs[1]), _indices(rest)
    whole = _tensor(graph, made, b"_whole", _Type.INT32, unit)
    add = _operator(model, _Code.ADD, 1, [made, rest], whole, schema.AddOptionsT())
    return [of_row, add], whole


def _rounding(model: Any, graph: Any, sums: int, made: int, unit: float) -> list[Any]:
    """Return operators that round int32 `sums`, which count units, to the int8 tensor `made`.

    They round counts, then say that a count is worth `unit`: times 1 is what an int8 MUL does exactly.
    QUANTIZE from int32 would do it in one step and twenty times the instructions.
    """
    scale, zero_point = _scale(graph.tensors[made]) / unit, _zero_point(graph.tensors[made])
    exact = _tensor(graph, made, b"_exact", _Type.FLOAT32)
    counts = _tensor(graph, made, b"_counts", _Type.INT8, scale, zero_point)
    one = _constant(model, graph, np.ones((), np.int8), unit)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = _Type.INT32, _Type.FLOAT32
    return [
        _operator(model, _Code.CAST, 1, [sums], exact, cast),
        _operator(model, _Code.QUANTIZE, 1, [exact], counts),
        _operator(model, _Code.MUL, 2, [counts, one], made, schema.MulOptionsT()),
    ]


def _symmetric(tensor: Any) -> tuple[float, int]:
    """Return the scale and zero point 0 at which all of the tensor's 256 values have a place."""
    zero_point = _zero_point(tensor)
    return _scale(tensor) * max(127 - zero_point, 128 + zero_point) / 127, 0


def _requantize(model: Any, graph: Any, user: Any, position: int, scale: float, zero_point: int) -> None:
    """Give an input of `user` another scale and zero point.

    Where it is made for `user` alone it is made so; else a QUANTIZE goes in between.
    """
    index = int(user.inputs[position])
    tensor = graph.tensors[index]
    if _zero_point(tensor) == zero_point:
        return
    made_by = [flatbuffer.operator_name(model, o) for o in graph.operators if index in o.outputs]
    used_by = [o for o in graph.operators if index in o.inputs]
    if len(used_by) == 1 and made_by and made_by[0] in _ANY_SCALE:
        _quantize(tensor, scale, zero_point)
        return
    moved = _tensor(graph, index, b"_moved", _Type.INT8, scale, zero_point)
    _replace(graph, user, _operator(model, _Code.QUANTIZE, 2, [index], moved), user)
    user.inputs = _indices(*(moved if at == position else i for at, i in enumerate(user.inputs)))


def _constant(model: Any, graph: Any, values: NDArray[Any], scale: float | None = None) -> int:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = schema.TensorT()
    tensor.name, tensor.type = b"portable", _Type.INT32
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
