"""What a model's bytes are: item tables and the rest of the network, whichever kind of file it is."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.convert import intake
from edgepack.errors import ConvertError


class Matrix(NamedTuple):
    """One table: a row for each item. `copies` counts its transposed twins in the file, itself included."""

    name: str
    rows: int
    width: int
    dtype: str
    copies: int

    @property
    def weights(self) -> int:
        """How many numbers one copy holds."""
        return self.rows * self.width


class Makeup(NamedTuple):
    """`tables` are the matrices that hold a row for each item; `network_weights` counts all other numbers.

    `stored_bytes` is what all weights take as they are stored now, copies included.
    """

    tables: tuple[Matrix, ...]
    network_weights: int
    stored_bytes: int


def makeup(path: Path) -> Makeup:
    """Return what the model in `path` is made of: .tflite, .onnx, .keras or .h5. Loads no TensorFlow.

    A table is a matrix with a row for each item (or its transpose, the layer that scores them), and the items
    are the longest side of any matrix: a recommender has more items than units in a layer.
    Raises ConvertError for a file that cannot be read so.
    """
    reader = _READERS.get(path.suffix)
    if reader is None or not path.is_file():
        raise ConvertError(
            str(path),
            "is not a file whose weights can be read",
            allowed=f"allowed are {', '.join(_READERS)}",
            remedy="Save the model as .keras, or convert it.",
        )
    return _sorted_out(list(reader(path)))


def _sorted_out(weights: list[tuple[str, NDArray[Any]]]) -> Makeup:
    tables: dict[bytes, Matrix] = {}
    network, rows = 0, max((max(array.shape) for _, array in weights if array.ndim == 2), default=0)
    for name, array in sorted(weights, key=lambda pair: pair[0]):
        if array.ndim != 2 or max(array.shape) < rows:
            network += array.size
            continue
        upright = array if array.shape[0] > array.shape[1] else array.T
        known = tables.get(upright.tobytes())
        found = Matrix(name, upright.shape[0], upright.shape[1], array.dtype.name, 1)
        tables[upright.tobytes()] = found if known is None else known._replace(copies=known.copies + 1)
    largest_first = sorted(tables.values(), key=lambda table: -table.weights)
    return Makeup(tuple(largest_first), network, sum(array.nbytes for _, array in weights))


def _keras(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    intake.describe(path)
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _hdf5(io.BytesIO(archive.read("model.weights.h5")))
    except KeyError as error:
        raise ConvertError(
            str(path), "holds no model.weights.h5", remedy="Save the model again with Keras."
        ) from error


def _hdf5(file: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    import h5py  # type: ignore[import-untyped]

    found: list[tuple[str, NDArray[Any]]] = []

    def note(name: str, node: Any) -> None:
        is_weight = isinstance(node, h5py.Dataset) and node.dtype.kind == "f" and node.size
        if is_weight and "optimizer" not in name.partition("/")[0]:
            found.append((name, node[()]))

    with h5py.File(file) as opened:
        opened.visititems(note)
    yield from found


def _whole_hdf5(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    intake.describe(path)
    yield from _hdf5(path)


def _tflite(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    from edgepack.convert import flatbuffer

    for constant in flatbuffer.constants(path.read_bytes()):
        if constant.values.dtype.kind == "f" or constant.values.dtype == np.int8:
            yield constant.name, constant.values


def _onnx(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    from edgepack.convert import onnx_graph

    for name, array in onnx_graph.parse(path.read_bytes(), str(path)).weights.items():
        if array.dtype.kind == "f" or array.dtype in (np.int8, np.uint8):
            yield name, array


_READERS = {
    ".keras": _keras,
    ".h5": _whole_hdf5,
    ".hdf5": _whole_hdf5,
    ".tflite": _tflite,
    ".onnx": _onnx,
}
