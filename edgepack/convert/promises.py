"""Whether the item tables in a file take the bytes that its format promises, and what is too much."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Bytes an element; every other format promises int8.
_WIDTH = {"float32": 4, "float16": 2}
# Converters leave smaller matrices in float32, because a scale and an operator would cost more.
_SMALLEST = 1024
_ALIKE = 0.02  # mean absolute distance, of the mean absolute value


class _Matrix(NamedTuple):
    name: str
    real: NDArray[np.float32]
    nbytes: int
    is_table: bool


def broken(data: bytes, format: str) -> tuple[str, ...]:
    """Return a sentence for each table of a .tflite or .onnx file that takes more bytes than promised.

    A table is what rows are looked up in. It breaks the promise when its elements are wider than those of
    `format`, or when the file holds it again, straight or transposed, for another layer to read.
    """
    matrices = _tflite(data) if format.startswith("tflite") else _onnx(data)
    tables = [m for m in matrices if m.is_table and m.real.size >= _SMALLEST]
    found = [_sentence(table, matrices, format) for table in tables]
    return tuple(sentence for sentence in found if sentence)


def _sentence(table: _Matrix, matrices: list[_Matrix], format: str) -> str:
    promised = table.real.size * _WIDTH.get(format.split("-", 1)[1], 1)
    again = [m for m in matrices if not m.is_table and _is_copy(m.real, table.real)]
    stored = table.nbytes + sum(m.nbytes for m in again)
    if stored <= promised:
        return ""
    why = f"stored again as {', '.join(m.name for m in again)}" if again else "stored in a wider type"
    return f"table {table.name} takes {stored:,} bytes where {format} promises {promised:,}: {why}"


def _is_copy(matrix: NDArray[np.float32], table: NDArray[np.float32]) -> bool:
    same_way = matrix if matrix.shape == table.shape else matrix.T
    if same_way.shape != table.shape:
        return False
    return float(np.abs(same_way - table).mean()) <= _ALIKE * float(np.abs(table).mean())


def _tflite(data: bytes) -> list[_Matrix]:
    from edgepack.convert import flatbuffer

    found = []
    for constant in flatbuffer.constants(data):
        if constant.values.ndim == 2 and constant.values.dtype.kind in "fi":
            scale = constant.scales[0] if len(constant.scales) else np.float32(1)
            real = (constant.values.astype(np.float32) - constant.zero_point) * scale
            table = constant.name.endswith("/table")
            found.append(_Matrix(constant.name.split("/")[0], real, constant.values.nbytes, table))
    return found


def _onnx(data: bytes) -> list[_Matrix]:
    from edgepack.convert import onnx_graph

    graph = onnx_graph.parse(data)
    looked_up = {node.input[0] for node in graph.nodes if node.op_type == "Gather"}
    found = []
    for name, values in graph.weights.items():
        if values.ndim == 2 and values.dtype.kind in "fi":
            real = values.astype(np.float32) * graph.weights.get(f"{name}/scale", np.float32(1))
            found.append(_Matrix(name, real, values.nbytes, name in looked_up))
    return found
