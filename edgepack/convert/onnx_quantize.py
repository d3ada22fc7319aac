"""Smaller ONNX files from a float one: float16 weights, dynamic int8, static QDQ (U8 inputs, S8 weights).

Only products with a stored matrix and look-ups in a stored table are quantized. Masks, softmax, residuals
and normalization stay float, so that a large negative mask never eats the range of a quantized tensor, and
scores come out of an int32 accumulator, so that they do not tie. Weights are symmetric (zero stays zero):
one scale per column for a matrix that is only multiplied with, one scale for a table and for what lies on
a coarse grid. A table that is both looked up and multiplied with is stored once, transposed, because integer
products cannot transpose.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgepack.convert.onnx_graph import ANONYMOUS, Array, Graph, attribute, ranks, to_bytes
from edgepack.levels import step_of
from edgepack.ranges import Method, Ranges, chosen
from edgepack.rows import Rows, named, row_count

Nodes = list[onnx.NodeProto]

_SMALLEST_MATRIX = 256  # elements; below it the extra node costs more than the bytes it saves
_MOST_CLUSTERS = 64
_FLOAT16_MAX = 65_504.0


class Product(NamedTuple):
    """A MatMul or Gemm with a stored matrix: `activation` x `weight` (+ `bias`, "" if none) -> `output`."""

    activation: str
    weight: str
    is_transposed: bool
    bias: str
    output: str


class Stored(NamedTuple):
    """An int8 weight: `values` = weight (transposed if so flagged) / `scale`, a scalar or one per column."""

    name: str
    values: NDArray[np.int8]
    scale: NDArray[np.float32]
    is_transposed: bool


Multiply = Callable[[Product, Stored, dict[str, Array]], Nodes]
"""Return the nodes of one product; constants that they need are added to the weights handed in."""


def float16(graph: Graph) -> Graph:
    """Store matrices as float16; a look-up casts the rows it found, every other use casts the whole."""
    weights = {name: a.astype(np.float16) if _fits_float16(a) else a for name, a in graph.weights.items()}
    halved = {name for name in weights if weights[name].dtype != graph.weights[name].dtype}
    nodes = [_cast(name, f"{name}/float32", TensorProto.FLOAT) for name in sorted(halved)]
    for node in graph.nodes:
        if node.op_type == "Gather" and node.input[0] in halved:
            rows = f"{node.output[0]}/float16"
            nodes += [_like(node, node.input, [rows]), _cast(rows, node.output[0], TensorProto.FLOAT)]
        else:
            nodes.append(_like(node, [f"{n}/float32" if n in halved else n for n in node.input], node.output))
    return graph._replace(nodes=nodes, weights=weights)


def _fits_float16(array: Array) -> bool:
    return _is_matrix(array) and float(np.abs(array).max()) < _FLOAT16_MAX


def dynamic(graph: Graph, float_layers: Collection[str] = ()) -> Graph:
    """Quantize to int8; the range of each activation is found anew in every run.

    Weights of `float_layers`, known by the part of their names before "/", stay float32.
    """
    return _quantized(graph, _dynamic_product, float_layers)


def qdq(graph: Graph, ranges: Ranges, float_layers: Collection[str] = ()) -> Graph:
    """Quantize to int8 with fixed activation ranges, tensor -> (min, max), as of `measured_ranges`.

    An activation that has none stays float. `float_layers` as for `dynamic`.
    """

    def multiply(product: Product, weight: Stored, weights: dict[str, Array]) -> Nodes:
        return _qdq_product(product, weight, weights, ranges.get(product.activation))

    return _quantized(graph, multiply, float_layers)


def measured_ranges(
    graph: Graph,
    calibration: NDArray[np.int32] | Rows,
    method: Method = "min-max",
    float_layers: Collection[str] = (),
) -> Ranges:
    """Return the range of each tensor that enters a product, by `method` over `calibration`.

    `calibration`: int32 [n, L] an input. `float_layers` as for `dynamic`: their products need no range.
    """
    wanted = _entering(graph, float_layers)
    return chosen(lambda: _values(graph, wanted, calibration), method)


def ranges_in_turn(
    graph: Graph,
    calibration: NDArray[np.int32] | Rows,
    method: Method = "min-max",
    float_layers: Collection[str] = (),
) -> Ranges:
    """Return what `measured_ranges` does, tensor after tensor, off the graph that is quantized so far.

    Each range is chosen from what arrives when all weights, and the activations before it, are rounded.
    """
    ranges: Ranges = {}
    # Nodes of a file follow those that they read, and so do the tensors here.
    for name in _entering(graph, float_layers):
        rounded = qdq(graph, ranges, float_layers)
        ranges |= chosen(partial(_values, rounded, [name], calibration), method)
    return ranges


def corrected(
    graph: Graph, calibration: NDArray[np.int32] | Rows, float_layers: Collection[str] = ()
) -> Graph:
    """Return the float graph with E[x] (W - W_rounded) added to the bias of each product that has one.

    The means of x are those over `calibration`, int32 [n, L] an input (Nagel et al., ICCV 2019).
    """
    products = _products(graph, float_layers)
    stored = {weight.name: weight for weight in _stored(graph, products, float_layers)}
    means = _means(graph, calibration)
    weights, nodes = dict(graph.weights), []
    for node in graph.nodes:
        product, bias = _biased(node, products, graph)
        if product is not None:
            error = _rounding_error(product, stored[product.weight], graph.weights[product.weight])
            own = f"{bias}/{node.output[0]}"  # one array may serve as the bias of several products
            weights[own] = np.asarray(graph.weights[bias] + means[product.activation] @ error, np.float32)
            node = _like(node, [own if name == bias else name for name in node.input], node.output)
        nodes.append(node)
    return graph._replace(nodes=nodes, weights=weights)


def _biased(node: onnx.NodeProto, products: dict[str, Product], graph: Graph) -> tuple[Product | None, str]:
    """Return the product whose bias `node` adds, within a Gemm or after it, and the bias."""
    own = products.get(node.output[0])
    if own is not None:
        return (own, own.bias) if own.bias in graph.weights else (None, "")
    if node.op_type == "Add":
        # The product of a sequence is reshaped before the bias comes.
        shaped = {made.output[0]: made.input[0] for made in graph.nodes if made.op_type == "Reshape"}
        for source, bias in (tuple(node.input), tuple(node.input)[::-1]):
            product = products.get(shaped.get(source, source))
            if product is not None and bias in graph.weights and graph.weights[bias].ndim == 1:
                return product, bias
    return None, ""


def _rounding_error(product: Product, weight: Stored, array: Array) -> NDArray[np.float32]:
    rounded = weight.values * weight.scale
    error = array - (rounded.T if weight.is_transposed else rounded)
    return np.asarray(error.T if product.is_transposed else error)


def _means(graph: Graph, calibration: NDArray[np.int32] | Rows) -> dict[str, NDArray[np.float64]]:
    totals: dict[str, NDArray[np.float64]] = {}
    for name, values in _values(graph, _entering(graph), calibration):
        mean = values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64)
        totals[name] = totals.get(name, 0) + mean / row_count(calibration)
    return totals


def _entering(graph: Graph, float_layers: Collection[str] = ()) -> list[str]:
    """Return each tensor that enters a product, once, in the order of the nodes."""
    return list(dict.fromkeys(product.activation for product in _products(graph, float_layers).values()))


def _values(
    graph: Graph, wanted: list[str], calibration: NDArray[np.int32] | Rows
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield, row by row of `calibration`, each tensor of `wanted`."""
    import onnxruntime

    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # sums are then added in one order, whatever the machine
    # A product of rounded values, not of this machine's integers, which may overflow 16 bits.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(
        to_bytes(graph._replace(outputs=outputs)), options, providers=["CPUExecutionProvider"]
    )
    rows = dict(named(calibration))
    if len(rows) == 1:
        rows = {graph.inputs[0].name: next(iter(rows.values()))}
    for row in range(row_count(rows)):
        fed = {name: values[row : row + 1].astype(np.int32) for name, values in rows.items()}
        yield from zip(wanted, session.run(wanted, fed), strict=True)


def _quantized(graph: Graph, multiply: Multiply, float_layers: Collection[str]) -> Graph:
    products = _products(graph, float_layers)
    stored = {weight.name: weight for weight in _stored(graph, products, float_layers)}
    weights = {name: array for name, array in graph.weights.items() if name not in stored}
    for weight in stored.values():
        zero = np.zeros(weight.scale.shape, np.int8)
        weights |= {
            weight.name: weight.values,
            f"{weight.name}/scale": weight.scale,
            _zero_name(weight): zero,
        }
    nodes: Nodes = []
    for node in graph.nodes:
        product = products.get(node.output[0])
        if product is not None and product.is_transposed == stored[product.weight].is_transposed:
            nodes += multiply(product, stored[product.weight], weights)
        elif _is_look_up(node, stored):
            nodes += _looked_up(node, stored[node.input[0]])
        else:
            inputs = [f"{name}/float32" if name in stored else name for name in node.input]
            nodes.append(_like(node, inputs, node.output))
    for weight in stored.values():
        nodes += _whole(weight)
    return graph._replace(nodes=nodes, weights=weights)


def _is_look_up(node: onnx.NodeProto, stored: Mapping[str, Stored]) -> bool:
    is_by_row = node.op_type == "Gather" and attribute(node, "axis", 0) == 0
    return is_by_row and node.input[0] in stored


def _products(graph: Graph, float_layers: Collection[str] = ()) -> dict[str, Product]:
    known = ranks(graph)
    return {
        node.output[0]: _as_product(node)
        for node in graph.nodes
        if node.op_type in ("MatMul", "Gemm")
        and node.input[0] not in graph.weights
        and _is_matrix(graph.weights.get(node.input[1]))
        and not _stays_float(node.input[1], float_layers)
        and known.get(node.input[0], 0) >= 2
        and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0), attribute(node, "transA", 0))
        == (1, 1, 0)
    }


def _as_product(node: onnx.NodeProto) -> Product:
    bias = node.input[2] if len(node.input) > 2 else ""
    is_transposed = bool(attribute(node, "transB", 0))
    return Product(node.input[0], node.input[1], is_transposed, bias, node.output[0])


def _is_matrix(array: Array | None) -> bool:
    return (
        array is not None and array.dtype == np.float32 and array.ndim == 2 and array.size >= _SMALLEST_MATRIX
    )


def _stays_float(weight: str, float_layers: Collection[str]) -> bool:
    return weight.split("/")[0] in float_layers


def _stored(graph: Graph, products: dict[str, Product], float_layers: Collection[str]) -> Iterator[Stored]:
    for name, array in graph.weights.items():
        if not _is_matrix(array) or _stays_float(name, float_layers):
            continue
        turns = {product.is_transposed for product in products.values() if product.weight == name}
        readers = [node for node in graph.nodes if name in node.input]
        is_transposed = turns == {True}
        values = np.ascontiguousarray(array.T) if is_transposed else array
        is_product_only = len(turns) == 1 and all(node.output[0] in products for node in readers)
        # A scale a column would make other values of one cluster in every column.
        scale = _scale(values, by_column=is_product_only and len(np.unique(array)) > _MOST_CLUSTERS)
        yield Stored(name, np.rint(values / scale).clip(-127, 127).astype(np.int8), scale, is_transposed)


def _scale(values: Array, *, by_column: bool) -> NDArray[np.float32]:
    step = step_of(values)
    if step is not None:
        # Few levels deflate well, which a scale per column would undo.
        return np.asarray(step, np.float32)
    peaks = np.abs(values).max(axis=0 if by_column else None)
    return np.asarray(np.where(peaks > 0, peaks / 127, 1), np.float32)


def _looked_up(node: onnx.NodeProto, weight: Stored) -> Nodes:
    """Gather int8 rows, then dequantize those alone: dequantizing the table first takes 40 times as long."""
    output, rows, ids = node.output[0], f"{node.output[0]}/int8", node.input[1]
    if not weight.is_transposed:
        return [_like(node, [weight.name, ids], [rows]), _dequantized(weight, rows, output)]
    # Columns of the transposed table: [width, *ids] comes out, [*ids, width] is wanted.
    columns = f"{output}/columns"
    return [
        helper.make_node("Gather", [weight.name, ids], [columns], axis=1),
        helper.make_node("Transpose", [columns], [rows], perm=[1, 2, 0]),
        _dequantized(weight, rows, output),
    ]


def _whole(weight: Stored) -> Nodes:
    """Dequantize the whole weight, for other uses (`to_bytes` drops this where there are none)."""
    straight, turned = f"{weight.name}/float32", f"{weight.name}/turned"
    if not weight.is_transposed:
        return [_dequantized(weight, weight.name, straight)]
    turn = helper.make_node("Transpose", [turned], [straight], perm=[1, 0])
    return [_dequantized(weight, weight.name, turned), turn]


def _dequantized(weight: Stored, source: str, output: str) -> onnx.NodeProto:
    # Without a zero point, onnxruntime's QDQPropagation puts in a QuantizeLinear that takes the default,
    # uint8, and cuts off every negative value.
    inputs = [source, f"{weight.name}/scale", _zero_name(weight)]
    axis = {"axis": 1} if weight.scale.ndim else {}
    return helper.make_node("DequantizeLinear", inputs, [output], **axis)


def _zero_name(weight: Stored) -> str:
    return f"{ANONYMOUS}_{weight.name}/zero"


def _dynamic_product(product: Product, weight: Stored, weights: dict[str, Array]) -> Nodes:
    # onnxruntime fuses exactly this pattern into MatMulIntegerToFloat or DynamicQuantizeMatMul.
    quantized, scale, zero = (f"{product.activation}/{part}" for part in ("uint8", "scale", "zero"))
    total, cast, factor = (f"{product.output}/{part}" for part in ("int32", "cast", "factor"))
    return [
        helper.make_node("DynamicQuantizeLinear", [product.activation], [quantized, scale, zero]),
        helper.make_node("MatMulInteger", [quantized, weight.name, zero], [total]),
        _cast(total, cast, TensorProto.FLOAT),
        helper.make_node("Mul", [scale, f"{weight.name}/scale"], [factor]),
        *_with_bias(helper.make_node("Mul", [cast, factor], [product.output]), product),
    ]


def _qdq_product(
    product: Product, weight: Stored, weights: dict[str, Array], ends: tuple[float, float] | None
) -> Nodes:
    matrix = f"{product.output}/matrix"
    source, nodes = product.activation, []
    if ends is not None:
        source, nodes = f"{product.activation}/real", _rounded(product.activation, weights, *ends)
    return [
        *nodes,
        _dequantized(weight, weight.name, matrix),
        *_with_bias(helper.make_node("MatMul", [source, matrix], [product.output]), product),
    ]


def _rounded(activation: str, weights: dict[str, Array], low: float, high: float) -> Nodes:
    """Round an activation to 256 levels from `low` to `high`; the result is called `activation`/real."""
    scale = np.float32(max(high - low, 1e-8) / 255)
    names = [f"{ANONYMOUS}_{activation}/{part}" for part in ("scale", "zero")]
    weights[names[0]] = np.asarray(scale)
    weights[names[1]] = np.asarray(np.rint(-low / scale).clip(0, 255), np.uint8)
    quantized = f"{activation}/uint8"
    return [
        helper.make_node("QuantizeLinear", [activation, *names], [quantized]),
        helper.make_node("DequantizeLinear", [quantized, *names], [f"{activation}/real"]),
    ]


def _with_bias(last: onnx.NodeProto, product: Product) -> Nodes:
    if not product.bias:
        return [last]
    last.output[0] = f"{product.output}/product"
    return [last, helper.make_node("Add", [last.output[0], product.bias], [product.output])]


def _cast(source: str, result: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], to=kind)


def _like(node: onnx.NodeProto, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    """Return a copy of a node that reads and makes other tensors."""
    copy = helper.make_node(node.op_type, list(inputs), list(outputs))
    copy.attribute.extend(node.attribute)
    return copy
