"""Gives an all-integer .tflite file float32 scores that do not tie, at no cost in bytes.

In an int8 file the scores have 256 levels at most, so thousands of items tie and the top of the list
depends on the order of ties. Here the last layer keeps its int8 weights but adds up in float32.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.convert import flatbuffer
from edgepack.errors import ConvertError

# What may stand between the last FULLY_CONNECTED and the scores, and works on float32 as it is: three add up
# what the books of item codes score, three lay the scores of shared rows out and multiply them by scales.
_PASSING = dict.fromkeys(
    ("RESHAPE", "LOGISTIC", "SQUEEZE", "SPLIT", "GATHER", "ADD", "CONCATENATION", "STRIDED_SLICE", "MUL"), 1
)
# Hybrid FULLY_CONNECTED: float32 activations, int8 weights of one scale, inputs quantized row by row with
# a zero point. Version 9 is in tflite-runtime 2.14; 12 (a scale per channel) is not.
_HYBRID_VERSION = 9


class _Tail(NamedTuple):
    scoring: Any
    passing: list[Any]
    dequantize: Any


def float_scores(model: bytes) -> bytes:
    """Return the file with `FULLY_CONNECTED int8 -> DEQUANTIZE` turned into `DEQUANTIZE -> FULLY_CONNECTED`.

    `model` is a TFLite file whose one graph ends so (RESHAPE or LOGISTIC may stand between). The last
    layer's weights stay int8 and, if tied, stay shared with the item table.
    Raises ConvertError when the file ends otherwise, or its last weights have a scale per channel.
    """
    read_model = flatbuffer.read(model)
    graph = read_model.subgraphs[0]
    tail = _tail(read_model, graph)
    _require_one_scale(graph.tensors[tail.scoring.inputs[1]])

    opened = _add_float_tensor(graph, int(tail.scoring.inputs[0]), b"hidden_float32")
    dequantize = schema.OperatorT()
    dequantize.opcodeIndex = tail.dequantize.opcodeIndex
    dequantize.inputs, dequantize.outputs = _indices(tail.scoring.inputs[0]), _indices(opened)

    apart, breaker = _tie_breaker(read_model, graph, opened)
    tail.scoring.inputs = _indices(apart, *tail.scoring.inputs[1:])
    _bias_to_float(read_model, graph, tail.scoring)
    _to_hybrid(read_model, tail.scoring)
    for operator in (tail.scoring, *tail.passing):
        for made in operator.outputs:
            _to_float(graph.tensors[made])
    for operator in tail.passing:
        version = _PASSING[flatbuffer.operator_name(read_model, operator)]
        operator.opcodeIndex = _with_version(read_model, operator.opcodeIndex, version)
    last = tail.passing[-1] if tail.passing else tail.scoring
    last.outputs = tail.dequantize.outputs

    at = graph.operators.index(tail.scoring)
    graph.operators[at:at] = [dequantize, breaker, *_opened_scales(read_model, graph, tail)]
    graph.operators.remove(tail.dequantize)
    return flatbuffer.write(read_model)


def _tail(model: Any, graph: Any) -> _Tail:
    made_by = {int(made): operator for operator in graph.operators for made in operator.outputs}
    dequantize = made_by[int(graph.outputs[0])]
    names: list[str] = [flatbuffer.operator_name(model, dequantize)]
    passing: list[Any] = []
    scoring: list[Any] = []
    waiting = [int(dequantize.inputs[0])] if names == ["DEQUANTIZE"] else []
    while waiting:
        operator = made_by.get(waiting.pop())
        name = flatbuffer.operator_name(model, operator) if operator is not None else "its input"
        if name in _PASSING and not any(operator is known for known in passing):
            passing.append(operator)
            waiting += [i for i in _quantized_inputs(graph, operator) if not _is_constant(model, graph, i)]
        if name not in _PASSING and not any(operator is known for known in scoring):
            scoring.append(operator)
        names += [name] if name not in names else []
    ends = [flatbuffer.operator_name(model, one) for one in scoring if one is not None]
    if ends != ["FULLY_CONNECTED"]:
        raise ConvertError(
            "tflite-int8-f32scores",
            f"the graph ends with {' <- '.join(names)}",
            allowed="it must end with a Dense layer and nothing but Reshape or sigmoid after it",
            remedy="Use tflite-int8, or make a Dense layer the last one.",
        )
    return _Tail(
        scoring[0], [one for one in graph.operators if any(one is known for known in passing)], dequantize
    )


def _opened_scales(model: Any, graph: Any, tail: _Tail) -> list[Any]:
    """Return what turns int8 constants, by which scores are multiplied, into float32, and have them read."""
    found = []
    for operator in tail.passing:
        for constant in _quantized_inputs(graph, operator):
            if not _is_constant(model, graph, constant):
                continue
            opened = _add_float_tensor(graph, constant, graph.tensors[constant].name + b"_float32")
            graph.tensors[opened].buffer = 0
            dequantize = schema.OperatorT()
            dequantize.opcodeIndex = tail.dequantize.opcodeIndex
            dequantize.inputs, dequantize.outputs = _indices(constant), _indices(opened)
            operator.inputs = _indices(*(opened if i == constant else i for i in operator.inputs))
            found.append(dequantize)
    return found


def _is_constant(model: Any, graph: Any, index: int) -> bool:
    return flatbuffer.is_constant(model, graph.tensors[index])


def _quantized_inputs(graph: Any, operator: Any) -> list[int]:
    """Return the int8 tensors that an operator reads: not its axis, shape or places."""
    return [int(i) for i in operator.inputs if i >= 0 and graph.tensors[i].type == schema.TensorType.INT8]


def _require_one_scale(weights: Any) -> None:
    if len(weights.quantization.scale) != 1:
        raise ConvertError(
            "tflite-int8-f32scores",
            f"the last layer's weights have {len(weights.quantization.scale)} scales",
            allowed="tflite-runtime 2.14 runs one scale for the whole matrix",
            remedy="Convert with one scale per tensor for Dense layers.",
        )


def _add_float_tensor(graph: Any, like: int, name: bytes) -> int:
    tensor = copy.copy(graph.tensors[like])
    tensor.name = name
    _to_float(tensor)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _tie_breaker(model: Any, graph: Any, hidden: int) -> tuple[int, Any]:
    """Return a tensor that holds `hidden`, each column up by less than 1/256, and the MUL that makes it.

    Values off an int8 grid lie half-way between two steps of the hybrid layer's own grid time and again.
    LiteRT rounds such ties down or up by the processor (with dot products other kernels run), and a
    score then moves by some thousandths of the range. Columns that are scaled apart hardly ever tie.
    """
    width = graph.tensors[hidden].shape[-1]
    # Multiples of the golden ratio spread evenly, however many there are.
    spread = np.arange(1, width + 1) * (np.sqrt(5) - 1) / 2 % 1
    buffer = schema.BufferT()
    buffer.data = np.frombuffer((1 + spread / 256).astype(np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    factors = _add_float_tensor(graph, hidden, b"tie_breaker")
    graph.tensors[factors].buffer = len(model.buffers) - 1
    graph.tensors[factors].shape = _indices(width)
    apart = _add_float_tensor(graph, hidden, b"hidden_without_ties")
    multiply = schema.OperatorT()
    multiply.opcodeIndex = flatbuffer.operator_code(model, schema.BuiltinOperator.MUL, 1)
    multiply.inputs, multiply.outputs = _indices(hidden, factors), _indices(apart)
    multiply.builtinOptions = schema.MulOptionsT()
    multiply.builtinOptionsType = schema.BuiltinOptions.MulOptions
    return apart, multiply


def _to_float(tensor: Any) -> None:
    tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None


def _bias_to_float(model: Any, graph: Any, scoring: Any) -> None:
    if len(scoring.inputs) < 3 or scoring.inputs[2] < 0:
        return
    bias = graph.tensors[scoring.inputs[2]]
    stored = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.int32)
    values = (stored * np.float64(bias.quantization.scale[0])).astype(np.float32)
    # A buffer of its own: shared ones may serve other tensors.
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    bias.buffer = len(model.buffers) - 1
    _to_float(bias)


def _to_hybrid(model: Any, scoring: Any) -> None:
    scoring.builtinOptions.asymmetricQuantizeInputs = True
    scoring.builtinOptions.quantizedBiasType = 0
    scoring.opcodeIndex = _with_version(model, scoring.opcodeIndex, _HYBRID_VERSION)


def _with_version(model: Any, index: int, version: int) -> int:
    """Return the index of operator code `index` in `version`, added where it is missing."""
    return flatbuffer.operator_code(model, model.operatorCodes[index].builtinCode, version)


def _indices(*tensors: Any) -> Any:
    return np.asarray(tensors, np.int32)
