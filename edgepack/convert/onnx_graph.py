"""An ONNX graph that can be edited, and its one canonical form in bytes.

tf2onnx names and orders things differently in every run, so no graph is hashed, quantized or shipped
before it has passed through `to_bytes`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgepack.errors import ConvertError

Array = NDArray[Any]
ANONYMOUS = "constant"
_IR_VERSION = 8  # the version of ONNX 1.10 to 1.12: every runtime in use reads it


class Graph(NamedTuple):
    """A graph taken apart: nodes in any order, weights as arrays, inputs and outputs as declared."""

    nodes: list[onnx.NodeProto]
    weights: dict[str, Array]
    inputs: list[onnx.ValueInfoProto]
    outputs: list[onnx.ValueInfoProto]
    opset: int


def parse(data: bytes, where: str = "the ONNX model") -> Graph:
    """Take an ONNX model apart; Constant nodes become weights.

    Raises ConvertError when it is not ONNX or has control flow or operators of another domain.
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ConvertError(where, "is not an ONNX file", remedy="Export the model to ONNX again.") from error
    _refuse_what_cannot_be_edited(model, where)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        value = next((a for a in node.attribute if node.op_type == "Constant"), None)
        if value is None:
            nodes.append(node)
        else:
            weights[node.output[0]] = _constant(value)
    inputs = [value for value in model.graph.input if value.name not in weights]
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    return Graph(nodes, weights, inputs, list(model.graph.output), opset)


def _refuse_what_cannot_be_edited(model: onnx.ModelProto, where: str) -> None:
    if not model.graph.node or not any(entry.domain == "" for entry in model.opset_import):
        raise ConvertError(where, "holds no ONNX graph", remedy="Export the model to ONNX again.")
    for node in model.graph.node:
        nested = any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute
        )
        if nested or node.domain not in ("", "ai.onnx"):
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ConvertError(
                where,
                f"uses the operator {name}",
                allowed="operators of the ONNX standard without nested graphs may be used",
                remedy="Export the model for inference without it.",
            )


def _constant(value: onnx.AttributeProto) -> Array:
    if value.name == "value":
        array: Array = numpy_helper.to_array(value.t)
        return array
    kind = np.float32 if "float" in value.name else np.int64
    return np.asarray(helper.get_attribute_value(value), kind)


def to_bytes(graph: Graph) -> bytes:
    """Write a graph so that equal graphs give equal bytes, whatever their names and order were.

    Only what the outputs need is kept, in depth-first order from them; equal weights and equal nodes are
    stored once; tensors are named by operator and number. Weights keep their names, except those called
    `constant_...`, which are numbered anew.
    """
    names = _Names({*graph.weights, *(value.name for value in (*graph.inputs, *graph.outputs))})
    renamed = {value.name: value.name for value in graph.inputs}
    weights: dict[str, Array] = {}
    nodes: dict[tuple[object, ...], onnx.NodeProto] = {}
    by_content: dict[bytes, str] = {}
    for step in _depth_first(graph):
        if isinstance(step, str):
            array = graph.weights[step]
            key = _content(array)
            if key not in by_content:
                by_content[key] = names.new(ANONYMOUS) if step.startswith(f"{ANONYMOUS}_") else step
                weights[by_content[key]] = array
            renamed[step] = by_content[key]
        else:
            node = _rewritten(step, renamed, nodes, names)
            renamed.update(zip(step.output, node.output, strict=True))
    return _assembled(graph, list(nodes.values()), weights, renamed)


class _Names:
    """Hands out `STEM_NUMBER` names that none of the `taken` ones equals."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = {name for name in taken if not name.startswith(f"{ANONYMOUS}_")}
        self._numbers: Counter[str] = Counter()

    def new(self, stem: str) -> str:
        self._numbers[stem] += 1
        name = f"{stem}_{self._numbers[stem]}"
        return self.new(stem) if name in self._taken else name


def _rewritten(
    old: onnx.NodeProto,
    renamed: Mapping[str, str],
    nodes: dict[tuple[object, ...], onnx.NodeProto],
    names: _Names,
) -> onnx.NodeProto:
    """Return the node's canonical twin, which is an earlier one if that computes the same."""
    attributes = sorted(old.attribute, key=lambda attribute: str(attribute.name))
    inputs = [renamed[name] if name else "" for name in old.input]
    wanted = [bool(name) for name in old.output]
    settings = [attribute.SerializeToString(deterministic=True) for attribute in attributes]
    key = (old.op_type, *inputs, *wanted, *settings)
    if key not in nodes:
        name = names.new(old.op_type)
        outputs = [(f"{name}:{i}" if i else name) if used else "" for i, used in enumerate(wanted)]
        nodes[key] = helper.make_node(old.op_type, inputs, outputs, name=name)
        nodes[key].attribute.extend(attributes)
    return nodes[key]


def _content(array: Array) -> bytes:
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _depth_first(graph: Graph) -> Iterator[onnx.NodeProto | str]:
    """Yield weights (by name) and nodes that the outputs need, everything after what it reads."""
    makers = {name: node for node in graph.nodes for name in node.output if name}
    done = {value.name for value in graph.inputs} | {""}
    stack = [value.name for value in reversed(graph.outputs)]
    while stack:
        tensor = stack[-1]
        node = makers.get(tensor)
        missing = [] if node is None else [name for name in node.input if name not in done]
        if tensor not in done and missing:
            stack.extend(reversed(missing))
            continue
        stack.pop()
        if tensor not in done:
            yield tensor if node is None else node
            done.update([tensor] if node is None else node.output)


def _assembled(
    graph: Graph, nodes: list[onnx.NodeProto], weights: Mapping[str, Array], renamed: Mapping[str, str]
) -> bytes:
    inputs = [helper.make_tensor_value_info(v.name, *_typed(v)) for v in graph.inputs]
    outputs = [helper.make_tensor_value_info(v.name, *_typed(v)) for v in graph.outputs]
    # Outputs keep their own names: the maker of each is renamed back, as is whoever reads it.
    final = {renamed[value.name]: value.name for value in graph.outputs}
    for node in nodes:
        for field in (node.input, node.output):
            field[:] = [final.get(name, name) for name in field]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "edgepack", inputs, outputs, tensors),
        producer_name="edgepack",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", graph.opset)],
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _typed(value: onnx.ValueInfoProto) -> tuple[int, list[int | str] | None]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, [dim.dim_value or dim.dim_param for dim in tensor.shape.dim]


def renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """Return the graph with tensors called by the names that `names` gives them."""

    def copy(node: onnx.NodeProto) -> onnx.NodeProto:
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.input[:] = [names.get(name, name) for name in node.input]
        twin.output[:] = [names.get(name, name) for name in node.output]
        return twin

    def value(old: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(names.get(old.name, old.name), *_typed(old))

    return Graph(
        nodes=[copy(node) for node in graph.nodes],
        weights={names.get(name, name): array for name, array in graph.weights.items()},
        inputs=[value(old) for old in graph.inputs],
        outputs=[value(old) for old in graph.outputs],
        opset=graph.opset,
    )


def ranks(graph: Graph) -> dict[str, int]:
    """Return the number of dimensions of every tensor for which shape inference finds it."""
    model = onnx.load_model_from_string(
        _assembled(graph, graph.nodes, graph.weights, {v.name: v.name for v in graph.outputs})
    )
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, or `default` when the node does not set it."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def op_list(data: bytes) -> tuple[str, ...]:
    """Return "NAME vVERSION x COUNT" per operator, sorted; VERSION is the opset that last changed it."""
    graph = parse(data)
    counts = Counter(node.op_type for node in graph.nodes)
    return tuple(
        f"{name} v{onnx.defs.get_schema(name, graph.opset).since_version} x {count}"
        for name, count in sorted(counts.items())
    )


def table_bytes(data: bytes) -> int:
    """Return the bytes of the embedding tables: matrices that a Gather picks from, and item codes."""
    graph = parse(data)
    read, cast = ({n.input[0] for n in graph.nodes if n.op_type == kind} for kind in ("Gather", "Cast"))
    rows = (array for name, array in graph.weights.items() if name in read and array.ndim == 2)
    codes = (array for name, array in graph.weights.items() if name in cast and array.dtype == np.uint8)
    return sum(array.nbytes for array in (*rows, *codes))


def zero_share(data: bytes) -> dict[str, float]:
    """Return the share of exact zeros, 0..1, per stored float or int8 weight matrix, keyed by its name."""
    return {
        name: float(np.mean(array == 0))
        for name, array in sorted(parse(data).weights.items())
        if array.ndim >= 2 and (array.dtype.kind == "f" or array.dtype == np.int8)
    }
