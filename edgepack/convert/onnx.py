"""Keras serving graph to ONNX in every format that a web target can run."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from edgepack.convert import onnx_quantize
from edgepack.convert.byte_codes import has_codes, in_onnx
from edgepack.convert.onnx_graph import (
    ANONYMOUS,
    Array,
    Graph,
    attribute,
    op_list,
    parse,
    ranks,
    renamed,
    table_bytes,
    to_bytes,
    zero_share,
)
from edgepack.convert.ort_format import to_ort
from edgepack.errors import ConvertError, did_you_mean
from edgepack.ranges import Method, Ranges
from edgepack.rows import Rows

if TYPE_CHECKING:
    from edgepack.keras2 import keras

__all__ = ["FORMATS", "convert", "export", "op_list", "quantized", "table_bytes", "zero_share"]

_OPSET = 17

_VARIANTS: dict[str, Callable[[Graph, Callable[[], Ranges], Collection[str]], Graph]] = {
    "float32": lambda graph, ranges, kept: graph,
    "float16": lambda graph, ranges, kept: onnx_quantize.float16(graph),
    "dynamic": lambda graph, ranges, kept: onnx_quantize.dynamic(graph, kept),
    "qdq": lambda graph, ranges, kept: onnx_quantize.qdq(graph, ranges(), kept),
}
_INT8 = ("dynamic", "qdq")
FORMATS = tuple(f"{container}-{variant}" for container in ("onnx", "ort") for variant in _VARIANTS)


def convert(
    serving: "keras.Model",
    format: str,
    *,
    length: int,
    calibration: NDArray[np.int32] | Rows,
) -> bytes:
    """Return a serving graph as an ONNX or .ort file in one of FORMATS.

    `calibration`: int32 [n, length] an input, rows from which `qdq` reads the ranges of activations. The
    bytes depend on the graph and its weights alone, not on the process.

    Raises ConvertError for an unknown format or a graph that ONNX cannot say.
    """
    return quantized(export(serving, length=length), format, calibration)


def quantized(
    float_onnx: bytes,
    format: str,
    calibration: NDArray[np.int32] | Rows,
    *,
    method: Method = "min-max",
    bias_correction: bool = False,
    range_correction: bool = False,
    float_layers: Collection[str] = (),
) -> bytes:
    """Return a float ONNX model, canonical or not, in one of FORMATS; see `convert`.

    `method` chooses the ranges that `qdq` reads off the calibration, with `range_correction` in turn, from
    what the rounding before leaves. With `bias_correction` int8 formats take from the biases what rounding
    adds to the means. Weights of `float_layers` stay float32 in them.
    """
    container, _, variant = format.partition("-")
    if format not in FORMATS:
        raise ConvertError(
            f"format '{format}'",
            "is not an ONNX format",
            allowed=f"formats are {', '.join(FORMATS)}",
            remedy=f"{did_you_mean(format, list(FORMATS))}Take one of them.",
        )
    graph = parse(float_onnx)
    if bias_correction and variant in _INT8:
        graph = onnx_quantize.corrected(graph, calibration, float_layers)
    measured = onnx_quantize.ranges_in_turn if range_correction else onnx_quantize.measured_ranges
    ranges = partial(measured, graph, calibration, method, float_layers)
    data = to_bytes(_VARIANTS[variant](graph, ranges, float_layers))
    # Folding constants would write float16 weights out a second time, as float32, and codes as int32.
    folds = variant != "float16" and not has_codes(graph)
    return to_ort(data, folds_constants=folds) if container == "ort" else data


def export(serving: "keras.Model", *, length: int) -> bytes:
    """Return a serving graph as float32 ONNX in canonical form: batch 1, static shapes, one tied table.

    A single input is called `history`, several keep their names; an open length becomes `length`. The output
    is called `scores`.

    Raises ConvertError naming the operator when ONNX has no counterpart for one.
    """
    import tf2onnx

    from edgepack.keras2 import tf

    signature = [
        tf.TensorSpec((1, *(size or length for size in tensor.shape[1:])), tensor.dtype, name=tensor.name)
        for tensor in serving.inputs
    ]
    try:
        model, _ = tf2onnx.convert.from_keras(serving, input_signature=signature, opset=_OPSET)
    except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:
        raise ConvertError(
            f"model '{serving.name}'",
            f"cannot be written as ONNX ({str(error).splitlines()[0]})",
            remedy="Replace the layer it names, or leave the web targets out.",
        ) from error
    graph = parse(model.SerializeToString(), f"model '{serving.name}'")
    names = {graph.outputs[0].name: "scores"} if len(graph.outputs) == 1 else {}
    if len(graph.inputs) == 1:
        names[graph.inputs[0].name] = "history"
    variables = {variable.name.split(":")[0]: variable.numpy() for variable in serving.weights}
    return to_bytes(in_onnx(tied(renamed(graph, names | _weight_names(graph, variables)))))


def _weight_names(graph: Graph, variables: Mapping[str, Array]) -> dict[str, str]:
    """Return the Keras variable's name for every weight of its content, else an anonymous one."""
    known = {(array.shape, array.tobytes()): name for name, array in sorted(variables.items(), reverse=True)}
    return {
        tensor: known.get((array.shape, array.tobytes()), f"{ANONYMOUS}_{i}")
        for i, (tensor, array) in enumerate(graph.weights.items())
    }


def tied(graph: Graph) -> Graph:
    """Return the graph with products by a transposed table changed to read the looked-up table itself."""
    tables = {n.input[0]: graph.weights[n.input[0]] for n in graph.nodes if _is_look_up(n, graph)}
    known = ranks(graph)
    nodes = []
    for node in graph.nodes:
        is_plain = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
        matrix = graph.weights.get(node.input[1]) if is_plain and len(node.input) > 1 else None
        table = next((name for name, array in tables.items() if _is_transpose(matrix, array)), None)
        if table is None or known.get(node.input[0]) != 2:
            nodes.append(node)
        else:
            inputs = [node.input[0], table, *node.input[2:]]
            gemm = helper.make_node("Gemm", inputs, list(node.output), transB=1)
            gemm.attribute.extend(node.attribute)
            nodes.append(gemm)
    return graph._replace(nodes=nodes)


def _is_look_up(node: onnx.NodeProto, graph: Graph) -> bool:
    table = graph.weights.get(node.input[0]) if node.op_type == "Gather" else None
    return table is not None and table.ndim == 2


def _is_transpose(matrix: Array | None, table: Array) -> bool:
    return matrix is not None and matrix.shape == table.shape[::-1] and np.array_equal(matrix, table.T)
