"""Replaces the int8 operators of a .tflite file whose results depend on the processor by ones that do not.

LiteRT's int8 BATCH_MATMUL rounds negative ties up on ARM and down on x86, and on ARM cores without dot
products two neighbouring -128 x -128 run over. Its int8 SOFTMAX is one algorithm on ARM, another on x86; what
LOG_SOFTMAX and MEAN give near the middle of two steps differs. The other operators of an int8 recommender
give the same bytes on both.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgepack.convert import flatbuffer
from edgepack.convert import tflite_edit as edit

_Code = schema.BuiltinOperator
_Type = schema.TensorType
# They take an operand of any scale.
_ANY_SCALE = {"ADD", "SUB", "MUL", "SQUARED_DIFFERENCE", "FULLY_CONNECTED", "RSQRT"}
_NEAR_THE_MIDDLE, _TRIES = 0.0003, 400
_STEP = 1 / 32
"""Of what goes into the exponential: from 0 down to -255/32, below which a weight of 1/256 is none."""


class _Counts(NamedTuple):
    """A float32 tensor of whole numbers, what each is worth, and a tensor that all are to be divided by."""

    tensor: int
    worth: float
    divisor: int | None = None


class _File(NamedTuple):
    """A model, the graph at work, and the counts that stand for its int8 tensors by now."""

    model: Any
    graph: Any
    counted: dict[int, _Counts]


Rewrite = Callable[[_File, Any], None]


def portable(model: bytes) -> bytes:
    """Return the file with the same meaning and int8 results that every processor agrees on.

    BATCH_MATMUL becomes one of whole numbers in float32, which XNNPACK multiplies and LiteRT's int8 and int32
    kernels do in several times the instructions. Its sums are exact in any order up to 2^24 (258 terms,
    whatever the operands hold); what they are worth is multiplied in and rounded to int8 after it. SOFTMAX
    becomes its steps, each exact or rounded once; where its weights have one use, a product, its division
    comes after that. MEAN gets another scale where its result is a near thing, and RSQRT is looked up. A
    file that has none of them in int8 comes back as it is.
    """
    read_model = flatbuffer.read(model)
    files = [_File(read_model, graph, {}) for graph in read_model.subgraphs]
    found = [
        (rewrite, file, operator)
        for file in files
        for operator in file.graph.operators
        if (rewrite := _rewrite_of(read_model, file.graph, operator)) is not None
    ]
    for rewrite, file, operator in found:
        rewrite(file, operator)
    return flatbuffer.write(read_model) if found else model


def _rewrite_of(model: Any, graph: Any, operator: Any) -> Rewrite | None:
    """Return what replaces or settles an operator, None when it may stay."""
    name = flatbuffer.operator_name(model, operator)
    if name not in _REWRITES:
        return None
    # The second input of a MEAN names its axes.
    values = (*operator.inputs[: 1 if name == "MEAN" else None], *operator.outputs)
    return _REWRITES[name] if all(graph.tensors[i].type == _Type.INT8 for i in values) else None


def _exact_softmax(file: _File, softmax: Any) -> None:
    """Powers come from a table of 256 bytes, their sum is exact, and a division rounds once."""
    model, graph, counted = file
    logits, weights = int(softmax.inputs[0]), int(softmax.outputs[0])
    axis = edit.constant(model, graph, edit.indices(len(graph.tensors[logits].shape) - 1))
    real, less, parts, shares = (
        edit.tensor_like(graph, weights, suffix, _Type.FLOAT32)
        for suffix in (b"_real", b"_less", b"_parts", b"_shares")
    )
    largest, total = (edit.one_each(graph, weights, suffix) for suffix in (b"_largest", b"_total"))
    divided: tuple[Any, ...] = (
        edit.operator(model, _Code.DIV, 1, [parts, total], shares, schema.DivOptionsT()),
        edit.operator(model, _Code.QUANTIZE, 1, [shares], weights),
    )
    if _only_weighs(model, graph, weights):
        # A row of sums has fewer places than a row of weights, and weights that are not rounded again.
        counted[weights], divided = _Counts(parts, 1.0, total), ()
    steps = edit.tensor_like(graph, weights, b"_steps", _Type.INT8, _STEP, 127)
    powers = edit.tensor_like(graph, weights, b"_powers", _Type.INT8, 1 / 256, -128)
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    edit.replace(
        graph,
        softmax,
        edit.operator(model, _Code.DEQUANTIZE, 2, [logits], real),
        edit.operator(model, _Code.REDUCE_MAX, 1, [real, axis], largest, keep),
        edit.operator(model, _Code.SUB, 1, [real, largest], less, schema.SubOptionsT()),
        edit.operator(model, _Code.QUANTIZE, 1, [less], steps),
        edit.operator(model, _Code.EXP, 2, [steps], powers),
        edit.operator(model, _Code.DEQUANTIZE, 2, [powers], parts),
        edit.operator(model, _Code.SUM, 1, [parts, axis], total, keep),
        *divided,
    )


def _only_weighs(model: Any, graph: Any, weights: int) -> bool:
    readers = [operator for operator in graph.operators if weights in operator.inputs]
    return (
        len(readers) == 1
        and weights not in graph.outputs
        and _rewrite_of(model, graph, readers[0]) is _exact_matmul
        and int(readers[0].inputs[0]) == weights
        and not readers[0].builtinOptions.adjX
    )


def _decided_mean(file: _File, mean: Any) -> None:
    """Widen the steps of a MEAN's result until no sum lies near the middle of two of them.

    There LiteRT on x86 rounds to the wrong side at distances of up to 0.00008 steps. It leaves the scale
    where a reader of the result could not follow, or none is found.
    """
    model, graph, _ = file
    index, made = int(mean.inputs[0]), int(mean.outputs[0])
    readers = [flatbuffer.operator_name(model, one) for one in graph.operators if made in one.inputs]
    if made in graph.outputs or not set(readers) <= _ANY_SCALE:
        return
    given, result = graph.tensors[index], graph.tensors[made]
    terms = math.prod(given.shape) // math.prod(result.shape)
    low, high = (terms * (end - edit.zero_point_of(given)) for end in (-128, 127))
    values = np.arange(low, high + 1) * (np.float64(edit.scale_of(given)) / terms)
    for scale in np.float32(edit.scale_of(result)) * np.linspace(1, 1.02, _TRIES, dtype=np.float32):
        steps = values / np.float64(scale)
        steps = steps[np.abs(steps + edit.zero_point_of(result)) < 130]
        if np.abs(steps % 1 - 0.5).min() > _NEAR_THE_MIDDLE:
            edit.quantize(result, float(scale), edit.zero_point_of(result))
            return


def _looked_up_root(file: _File, root: Any) -> None:
    """An int8 RSQRT has 256 results; LiteRT works out each anew, in some 400 instructions.

    What is added to its operand alone, a norm's epsilon, is in the table as well.
    """
    model, graph, _ = file
    index, made = int(root.inputs[0]), int(root.outputs[0])
    index, added = _before_constant(model, graph, index)
    given, result = graph.tensors[index], graph.tensors[made]
    values = (np.arange(-128, 128) - edit.zero_point_of(given)) * np.float64(edit.scale_of(given)) + added
    # Nothing below zero comes in; LiteRT's root of zero is the largest result.
    steps = 1 / np.sqrt(np.maximum(values, 1e-30)) / edit.scale_of(result) + edit.zero_point_of(result)
    results = np.round(np.clip(steps, -128, 127)).astype(np.int8)
    table = edit.constant(model, graph, results, edit.scale_of(result))
    edit.quantize(graph.tensors[table], edit.scale_of(result), edit.zero_point_of(result))
    counts, rows = (edit.tensor_like(graph, index, suffix, _Type.INT32) for suffix in (b"_counts", b"_rows"))
    first = edit.constant(model, graph, edit.indices(128).reshape(()))
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = _Type.INT8, _Type.INT32
    edit.replace(
        graph,
        root,
        edit.operator(model, _Code.CAST, 1, [index], counts, cast),
        edit.operator(model, _Code.ADD, 1, [counts, first], rows, schema.AddOptionsT()),
        edit.operator(model, _Code.GATHER, 2, [table, rows], made, schema.GatherOptionsT()),
    )


def _before_constant(model: Any, graph: Any, index: int) -> tuple[int, float]:
    """Return what a constant is added to in tensor `index`, and the constant; without one, `index` and 0.

    An ADD that nobody else reads is taken out of the graph.
    """
    adding = [
        o for o in graph.operators if index in o.outputs and flatbuffer.operator_name(model, o) == "ADD"
    ]
    if not adding or sum(index in o.inputs for o in graph.operators) > 1 or index in graph.outputs:
        return index, 0.0
    first, second = (int(i) for i in adding[0].inputs)
    constant = graph.tensors[second]
    stored = model.buffers[constant.buffer].data
    if stored is None or len(stored) != 1:
        return index, 0.0
    graph.operators.remove(adding[0])
    return first, float(np.int8(np.uint8(stored[0])) - edit.zero_point_of(constant)) * edit.scale_of(constant)


def _exact_matmul(file: _File, matmul: Any) -> None:
    model, graph, _ = file
    made = int(matmul.outputs[0])
    before: list[Any] = []
    left, right = (_whole_numbers(file, int(index), before) for index in matmul.inputs)
    sums, values = (edit.tensor_like(graph, made, suffix, _Type.FLOAT32) for suffix in (b"_sums", b"_values"))
    product = copy.copy(matmul)
    product.opcodeIndex = flatbuffer.operator_code(model, _Code.BATCH_MATMUL, 1)
    product.inputs, product.outputs = edit.indices(left.tensor, right.tensor), edit.indices(sums)
    after = _worth(model, graph, sums, values, left.worth * right.worth, left.divisor)
    after.append(edit.operator(model, _Code.QUANTIZE, 1, [values], made))
    edit.replace(graph, matmul, *before, product, *after)


def _worth(model: Any, graph: Any, sums: int, values: int, worth: float, divisor: int | None) -> list[Any]:
    """Return what makes `values` of `sums`: times `worth`, by `divisor`."""
    if divisor is None:
        each = edit.constant(model, graph, np.full((), worth, np.float32))
        return [edit.operator(model, _Code.MUL, 1, [sums, each], values, schema.MulOptionsT())]
    inverse = edit.constant(model, graph, np.full((), 1 / worth, np.float32))
    scaled = edit.tensor_like(graph, divisor, b"_scaled", _Type.FLOAT32)
    return [
        edit.operator(model, _Code.MUL, 1, [divisor, inverse], scaled, schema.MulOptionsT()),
        edit.operator(model, _Code.DIV, 1, [sums, scaled], values, schema.DivOptionsT()),
    ]


def _whole_numbers(file: _File, index: int, operators: list[Any]) -> _Counts:
    """Return the counts of int8 tensor `index`; what makes them is added to `operators`.

    They may come times a power of two, which is as exact.
    """
    model, graph, counted = file
    if index in counted:
        return counted[index]
    worth, counts = edit.scale_of(graph.tensors[index]), index
    if math.frexp(worth)[0] == 0.5:
        worth = 1.0
    elif flatbuffer.is_constant(model, graph.tensors[index]):
        counts = edit.rescaled(graph, index, worth)
    elif not _count_at_once(model, graph, index):
        counts = edit.tensor_like(
            graph, index, b"_counts", _Type.INT8, 1.0, edit.zero_point_of(graph.tensors[index])
        )
        one = edit.constant(model, graph, np.ones((), np.int8), 1 / worth)
        operators.append(edit.operator(model, _Code.MUL, 2, [index, one], counts, schema.MulOptionsT()))
    whole = edit.tensor_like(graph, index, b"_whole", _Type.FLOAT32)
    operators.append(edit.operator(model, _Code.DEQUANTIZE, 2, [counts], whole))
    counted[index] = _Counts(whole, worth)
    return counted[index]


def _count_at_once(model: Any, graph: Any, index: int) -> bool:
    """Give tensor `index` the scale 1, if constants of its maker and of its other readers can take it up.

    All bytes stay what they were.
    """
    maker = _maker(graph, index)
    if maker is None or not _is_linear(model, maker):
        return False
    looked_up = [_maker(graph, int(i)) for i in maker.inputs if i >= 0]
    source = next((o for o in looked_up if o is not None and _is_own_look_up(model, graph, o)), maker)
    constants = _constants(model, graph, source)
    same, layers = _readers(model, graph, index)
    if not constants or layers is None:
        return False
    scale = edit.scale_of(graph.tensors[index])
    _rescale(graph, source, constants, scale)
    if source is not maker:
        edit.quantize(
            made := graph.tensors[source.outputs[0]], edit.scale_of(made) / scale, edit.zero_point_of(made)
        )
    for layer in layers:
        _rescale(graph, layer, _constants(model, graph, layer)[:1], 1 / scale)
    for one in same:
        edit.quantize(graph.tensors[one], 1.0, edit.zero_point_of(graph.tensors[one]))
    return True


def _maker(graph: Any, index: int) -> Any:
    return next((operator for operator in graph.operators if index in operator.outputs), None)


def _is_own_look_up(model: Any, graph: Any, operator: Any) -> bool:
    """Say whether an operator is a GATHER in a constant for one reader, as a root becomes."""
    made = int(operator.outputs[0])
    return flatbuffer.operator_name(model, operator) == "GATHER" and (
        sum(made in other.inputs for other in graph.operators) == 1
    )


def _readers(model: Any, graph: Any, index: int) -> tuple[list[int], list[Any] | None]:
    """Return `index` and its excerpts, and the Dense layers that read any; None if something else does."""
    same, layers = [index], []
    for one in same:
        for reader in (o for o in graph.operators if one in o.inputs):
            name = flatbuffer.operator_name(model, reader)
            if name in ("STRIDED_SLICE", "RESHAPE"):
                same.append(int(reader.outputs[0]))
            elif name == "FULLY_CONNECTED" and one == reader.inputs[0] and _constants(model, graph, reader):
                layers.append(reader)
            elif one != index or _rewrite_of(model, graph, reader) is not _exact_matmul:
                return same, None
    return same, None if set(same) & set(graph.outputs) else layers


def _constants(model: Any, graph: Any, operator: Any) -> list[int]:
    """Return the constants of an operator, none if one has a scale per channel."""
    found = [int(i) for i in operator.inputs if i >= 0 and flatbuffer.is_constant(model, graph.tensors[i])]
    scales = [graph.tensors[i].quantization.scale for i in found]
    return found if all(scale is not None and len(scale) == 1 for scale in scales) else []


def _rescale(graph: Any, operator: Any, constants: list[int], by: float) -> None:
    rescaled = {i: edit.rescaled(graph, i, by) for i in constants}
    operator.inputs = edit.indices(*(rescaled.get(int(i), int(i)) for i in operator.inputs))


def _is_linear(model: Any, operator: Any) -> bool:
    return (
        flatbuffer.operator_name(model, operator) in ("FULLY_CONNECTED", "MUL")
        and operator.builtinOptions.fusedActivationFunction == schema.ActivationFunctionType.NONE
    )


_REWRITES: dict[str, Rewrite] = {
    "SOFTMAX": _exact_softmax,
    "BATCH_MATMUL": _exact_matmul,
    "MEAN": _decided_mean,
    "RSQRT": _looked_up_root,
}
