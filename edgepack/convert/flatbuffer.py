"""Reads and writes .tflite files through their schema: small pure functions from bytes to bytes or facts.

Only the schema that comes with LiteRT is needed, no TensorFlow. Constants are known by the layer that
reads them (`item_embedding/table`, `block0_ffn_in/weights`), since converters name them at will.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgepack.errors import ConvertError

_IDENTIFIER = b"TFL3"
ADDED = b"portable"
"""The name of constants that are part of how a file computes, and no weights of the model's."""
_BUFFER_ALIGNMENT_BYTES = 16
OPERATORS: dict[int, str] = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)
}
_TYPE_NAMES: dict[int, str] = {
    code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)
}
_TYPES: dict[int, Any] = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.BOOL: np.bool_,
}
_FLOATING = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)
_MOVING = ("RESHAPE", "STRIDED_SLICE", "SPLIT", "UNPACK", "CONCATENATION")
_ROUNDING_ONCE = ("CAST", "QUANTIZE", "DEQUANTIZE", "ADD", "SUB", "MUL", "DIV", "REDUCE_MAX")
_WHOLE_IN_FLOAT32 = 2**24
"""Up to here float32 holds every whole number, and sums of such do not depend on their order."""
# Operator and position of the input -> what the constant there is to its layer.
_ROLES = {
    ("GATHER", 0): "table",
    ("EMBEDDING_LOOKUP", 1): "table",
    ("FULLY_CONNECTED", 1): "weights",
    ("FULLY_CONNECTED", 2): "bias",
    ("BATCH_MATMUL", 1): "weights",
    ("CONV_2D", 1): "weights",
    ("CAST", 0): "codes",
}


class Constant(NamedTuple):
    """One constant tensor: its name, values as stored, and quantization (empty arrays for none)."""

    name: str
    values: NDArray[Any]
    scales: NDArray[np.float32]
    zero_point: int


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    # The schema asks for 16-byte alignment of constants, which the generated Python code forgets.
    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802
        if x.dtype == np.uint8:
            self.Prep(_BUFFER_ALIGNMENT_BYTES, x.size)
        return int(super().CreateNumpyVector(x))


def read(model: bytes) -> Any:
    """Return the schema's ModelT of a .tflite file. Raises ConvertError when it is none."""
    if model[4:8] != _IDENTIFIER:
        raise ConvertError(
            "TFLite file",
            f"its identifier is {model[4:8]!r}",
            allowed="a .tflite file says b'TFL3' there",
            remedy="Give a model that TFLiteConverter wrote.",
        )
    return schema.ModelT.InitFromPackedBuf(model, 0)


def write(model: Any) -> bytes:
    """Return the bytes of a ModelT: the same bytes for the same model, constants aligned to 16 bytes."""
    builder = _AlignedBuilder(1 << 20)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def op_list(model: bytes) -> tuple[str, ...]:
    """Return the operators as "NAME vVERSION x COUNT", sorted: what a runtime must know to run the file."""
    read_model = read(model)
    counts = Counter(
        (operator_name(read_model, operator), read_model.operatorCodes[operator.opcodeIndex].version)
        for graph in read_model.subgraphs
        for operator in graph.operators
    )
    return tuple(f"{name} v{version} x {count}" for (name, version), count in sorted(counts.items()))


def constants(model: bytes) -> tuple[Constant, ...]:
    """Return every constant that is read, once, in the file's order; a shared one as the table that it is."""
    read_model = read(model)
    found: dict[tuple[int, int], Constant] = {}
    for number, graph in enumerate(read_model.subgraphs):
        names = _constant_names(read_model, graph)
        used = {int(index) for operator in graph.operators for index in operator.inputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in used or not is_constant(read_model, tensor) or tensor.type not in _TYPES:
                continue
            key = (number, int(tensor.buffer))
            name = names.get(index, _text(tensor.name))
            if key not in found or name.endswith("/table"):
                found[key] = _constant(read_model, tensor, name)
    return tuple(found.values())


def tables(model: bytes) -> dict[str, int]:
    """Return the bytes of each embedding table, by name: constants that rows are looked up in, and codes."""
    found = {c.name: c.values.nbytes for c in _matrices(model) if c.name.endswith("/table")}
    return found | {c.name: c.values.nbytes for c in constants(model) if c.values.dtype == np.uint8}


def zero_share(model: bytes) -> dict[str, float]:
    """Return the share of zeros of every weight matrix and table in the file, by name.

    A quantized zero is a value equal to the zero point. Shape arithmetic, biases and norms are left out.
    """
    return {c.name: float(np.mean(c.values == c.zero_point)) for c in _matrices(model)}


def scales(model: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the quantization scales of every weight matrix and table: one value, or one a channel."""
    return {c.name: c.scales for c in _matrices(model) if len(c.scales)}


def results(model: bytes, last: str) -> dict[str, list[str]]:
    """Return the names of the tensors that each layer's operators give, by the layer's name.

    `last` is the layer that gives the output, whose tensor has the name of none.
    """
    read_model = read(model)
    found: dict[str, list[str]] = {}
    for graph in read_model.subgraphs:
        for operator in graph.operators:
            index = int(operator.outputs[0])
            name = _text(graph.tensors[index].name)
            found.setdefault(last if index in graph.outputs else _layer(name), []).append(name)
    return found


def _matrices(model: bytes) -> list[Constant]:
    # A one-dimensional look-up is a function given as a list, not an embedding.
    found = (c for c in constants(model) if c.name.endswith(("/table", "/weights")))
    return [c for c in found if c.values.ndim >= 2]


def is_all_integer(model: bytes) -> bool:
    """Return True when every operator's result is exact or rounded once, so that the scores repeat to the
    bit anywhere.

    Operators on integers are, and so are on float32 CAST, QUANTIZE, DEQUANTIZE, REDUCE_MAX, the four
    arithmetic ones and those that only move values; and BATCH_MATMUL and SUM on whole numbers in float32, or
    such times a power of two, whose sums cannot grow past 2^24.
    """
    read_model = read(model)
    return all(
        _repeats(read_model, graph, operator)
        for graph in read_model.subgraphs
        for operator in graph.operators
    )


def _repeats(model: Any, graph: Any, operator: Any) -> bool:
    indices = (*operator.inputs, *operator.outputs)
    if not any(graph.tensors[index].type in _FLOATING for index in indices if index >= 0):
        return True
    if operator_name(model, operator) == "BATCH_MATMUL":
        depth = int(graph.tensors[operator.inputs[0]].shape[-2 if operator.builtinOptions.adjX else -1])
        left, right = (_largest_whole_number(model, graph, int(index)) for index in operator.inputs)
        return depth * left * right <= _WHOLE_IN_FLOAT32
    if operator_name(model, operator) == "SUM":
        terms: int = math.prod(graph.tensors[operator.inputs[0]].shape)
        return terms * _largest_whole_number(model, graph, int(operator.inputs[0])) <= _WHOLE_IN_FLOAT32
    return operator_name(model, operator) in (*_MOVING, *_ROUNDING_ONCE)


def _largest_whole_number(model: Any, graph: Any, index: int) -> float:
    """Return the largest absolute count in float32 tensor `index`, made from int8 by DEQUANTIZE.

    It is infinite when the tensor may hold what is no whole number times a power of two.
    """
    made_by = next((operator for operator in graph.operators if index in operator.outputs), None)
    if made_by is None or operator_name(model, made_by) != "DEQUANTIZE":
        return math.inf
    counts = graph.tensors[made_by.inputs[0]]
    is_exact = counts.type == schema.TensorType.INT8 and math.frexp(counts.quantization.scale[0])[0] == 0.5
    zero_point = int(counts.quantization.zeroPoint[0])
    return max(127 - zero_point, 128 + zero_point) if is_exact else math.inf


def canonical(model: bytes, output_name: str = "scores") -> bytes:
    """Return the file in a form that depends on the model alone, the output called `output_name`.

    Inputs are named as in the signature, constants after the layers that read them. Constants with
    equal bytes are stored once: a table that is both looked up in and multiplied with (tied weights)
    then takes its place a single time.
    """
    read_model = read(model)
    for signature in read_model.signatureDefs or ():
        signature.outputs[0].name = output_name.encode()
        tensors = read_model.subgraphs[signature.subgraphIndex].tensors
        for entry in (*signature.inputs, *signature.outputs):
            tensors[entry.tensorIndex].name = entry.name
    for graph in read_model.subgraphs:
        for index, name in _constant_names(read_model, graph).items():
            graph.tensors[index].name = name.encode()
    _share_buffers(read_model)
    return write(read_model)


def _share_buffers(model: Any) -> None:
    first: dict[bytes, int] = {}
    renumbered: dict[int, int] = {}
    kept: list[Any] = []
    for index, buffer in enumerate(model.buffers):
        data = b"" if buffer.data is None else bytes(buffer.data)
        # Buffer 0 is by convention the empty one, which tensors without constants point to.
        if index and data in first:
            renumbered[index] = first[data]
            continue
        renumbered[index] = first[data] = len(kept)
        kept.append(buffer)
    model.buffers = kept
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = renumbered[tensor.buffer]
    for entry in model.metadata or ():
        entry.buffer = renumbered[entry.buffer]


def _constant_names(model: Any, graph: Any) -> dict[int, str]:
    """Return the index and canonical name of each constant that a weight-bearing operator reads."""
    # A float16 constant goes through a DEQUANTIZE first.
    source = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if operator_name(model, operator) == "DEQUANTIZE"
    }
    names: dict[int, str] = {}
    for role, position, operator in _weighted(model, graph):
        index = int(source.get(operator.inputs[position], operator.inputs[position]))
        tensor = graph.tensors[index]
        if index < 0 or index in names or not is_constant(model, tensor) or tensor.name == ADDED:
            continue
        path = path_of(model, graph, int(operator.outputs[0]))
        names[index] = _unused(f"{_layer(path)}/{role}", set(names.values()))
    return names


def _weighted(model: Any, graph: Any) -> Iterator[tuple[str, int, Any]]:
    for operator in graph.operators:
        for position in range(len(operator.inputs)):
            role = _ROLES.get((operator_name(model, operator), position))
            if role is not None:
                yield role, position, operator


def path_of(model: Any, graph: Any, index: int) -> str:
    """Return what a tensor is called: as the output that it is, or is dequantized to, else as in the file."""
    outputs = _output_names(model)
    return (
        outputs.get(index) or _after(model, graph, index, outputs) or _text(graph.tensors[index].name or b"")
    )


def _after(model: Any, graph: Any, index: int, outputs: dict[int, str]) -> str | None:
    """Return the output's name when only a DEQUANTIZE stands between it and the tensor."""
    for operator in graph.operators:
        if operator_name(model, operator) == "DEQUANTIZE" and operator.inputs[0] == index:
            return outputs.get(int(operator.outputs[0]))
    return None


def _unused(name: str, taken: set[str]) -> str:
    """Return `name`, numbered from the second tensor that would be called so."""
    numbered = (name if n == 1 else f"{name}{n}" for n in range(1, len(taken) + 2))
    return next(candidate for candidate in numbered if candidate not in taken)


def _output_names(model: Any) -> dict[int, str]:
    return {
        int(entry.tensorIndex): _text(entry.name)
        for signature in model.signatureDefs or ()
        for entry in signature.outputs
    }


def _layer(path: str) -> str:
    """Return the layer in a tensor's path: "wrapper/model/quant_ffn/Relu;..." -> "ffn"."""
    parts = path.split(";")[0].split("/")
    layer = parts[2] if len(parts) > 2 else parts[0]
    return layer.removeprefix("quant_")


def _constant(model: Any, tensor: Any, name: str) -> Constant:
    data = model.buffers[tensor.buffer].data
    shape = () if tensor.shape is None else tuple(tensor.shape)
    values = np.frombuffer(bytes(data), _TYPES[tensor.type]).reshape(shape)
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None:
        return Constant(name, values, np.zeros(0, np.float32), 0)
    return Constant(name, values, np.asarray(quantization.scale), int(quantization.zeroPoint[0]))


def is_constant(model: Any, tensor: Any) -> bool:
    """Return whether the file holds the tensor's values."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def operator_name(model: Any, operator: Any) -> str:
    """Return an operator's name as in the schema (`FULLY_CONNECTED`), or its custom code."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return _text(code.customCode)
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def type_name(tensor: Any) -> str:
    """Return a tensor's type in small letters: `int8`."""
    return _TYPE_NAMES[tensor.type]


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def operator_code(model: Any, builtin: int, version: int) -> int:
    """Return the index of a builtin operator's code in `version`, added where it is missing."""
    for index, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (builtin, version):
            return index
    code = schema.OperatorCodeT()
    # Readers from before builtin codes grew past 127 look into the narrow field.
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
