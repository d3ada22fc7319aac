"""Takes a user's ONNX recommender in: the web formats come from the graph itself, TFLite through onnx2tf.

onnx2tf ends with status 0 on graphs that it got wrong, so nothing that it makes may be used before
`parity.check` has held it against `reference`.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgepack import proc
from edgepack.convert.onnx_graph import Graph, parse, renamed, to_bytes
from edgepack.errors import ConvertError

_CONTRACT = "one int32 or int64 input [1, length] and one float32 output [1, items + 1] are taken"
_EXPORT = "Export the model again with this signature"
_OLDEST_OPSET = 13  # the first whose DequantizeLinear knows a scale per column
_DEADLINE_S = 900.0


class OnnxModel(NamedTuple):
    """A user's model brought to the serving contract, as canonical ONNX `data`; `sha256` is of their file."""

    data: bytes
    sha256: str
    item_count: int
    length: int


def take_in(path: Path, *, item_count: int | None = None, length: int | None = None) -> OnnxModel:
    """Return the model at `path` with `history` int32 [1, length] in and `scores` float32 [1, V + 1] out.

    Names are changed, an int64 input gets a Cast, an open batch becomes 1; `item_count` and `length` fill
    in what the file leaves open and must agree with what it says.

    Raises ConvertError when it is not ONNX, its opset is too old, or its signature cannot be made to fit.
    """
    data, graph = _opened(path)
    if graph.opset < _OLDEST_OPSET:
        raise ConvertError(
            path.name,
            f"its operator set is {graph.opset}",
            allowed=f"{_OLDEST_OPSET} or newer is taken",
            remedy="Export it again with opset 17.",
        )
    source, target = _ends(graph, path.name)
    length = _agreed(path.name, "length", _dimension(source), length)
    width = _agreed(
        path.name, "items + 1", _dimension(target), None if item_count is None else item_count + 1
    )
    fitted = _fitted(graph, length, width)
    return OnnxModel(to_bytes(fitted), hashlib.sha256(data).hexdigest(), width - 1, length)


def _opened(path: Path) -> tuple[bytes, Graph]:
    try:
        data = path.read_bytes()
        # Reads weights that lie in files beside it, too.
        whole: bytes = onnx.load(path).SerializeToString()
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise ConvertError(
            str(path), f"cannot be read as ONNX ({error})", remedy="Give a whole .onnx file."
        ) from error
    return data, parse(whole, path.name)


def reference(
    model: OnnxModel, histories: NDArray[np.int32], *, deadline_s: float = 600
) -> NDArray[np.float32]:
    """Return the user's own model's scores, float32 [n, V + 1], for `histories` int32 [n, length].

    Raises MeasureError when onnxruntime cannot run it.
    """
    from edgepack.runtimes import host

    with proc.temporary_folder("edgepack-reference-") as folder:
        artifact = Path(folder) / "model.onnx"
        artifact.write_bytes(model.data)
        return host.run("onnxruntime", artifact, {"history": histories}, deadline_s=deadline_s)


def saved_model(model: OnnxModel, folder: Path) -> Path:
    """Write the model as a SavedModel under `folder` (onnx2tf, in a child process) and return its path.

    Raises ConvertError when onnx2tf gives up; that it did not says nothing of the result.
    """
    source, result = folder / "model.onnx", folder / "saved_model"
    folder.mkdir(parents=True, exist_ok=True)
    source.write_bytes(model.data)
    argv: list[str | Path] = [sys.executable, "-m", "onnx2tf", "-i", source, "-o", result]
    # onnx2tf calls its simplifier by name, and goes on without it to a graph that computes something else.
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PATH": found}
    done = proc.run([*argv, "-b", "1", "-osd", "-n"], deadline_s=_DEADLINE_S, cwd=folder, env=settings)
    if done.returncode != 0 or not (result / "saved_model.pb").is_file():
        raise ConvertError(
            "the ONNX model",
            f"onnx2tf cannot turn it into TensorFlow ({_last_line(done)})",
            remedy="Give the Keras model for the Android and ARM targets, or keep to the web targets.",
        )
    return result


def convert(model: OnnxModel, format: str, *, calibration: NDArray[np.int32], folder: Path) -> bytes:
    """Return the model in any TFLite, ONNX or .ort format; `calibration` is int32 [n, length].

    TFLite goes through the SavedModel under `folder`, which is made when it is not there yet.

    Raises ConvertError when a converter cannot take the model, or the format is unknown.
    """
    if not format.startswith("tflite-"):
        from edgepack.convert.onnx import quantized

        return quantized(model.data, format, calibration)
    from edgepack.convert import intake, tflite

    ready = folder / "saved_model"
    path = ready if (ready / "saved_model.pb").is_file() else saved_model(model, folder)
    graphs = intake.graphs(path, item_count=model.item_count, length=model.length)
    return tflite.convert(graphs.serving, format, length=model.length, calibration=calibration)


def _ends(graph: Graph, where: str) -> tuple[Any, Any]:
    """Return the one input and the one output. Raises ConvertError when there is not just one of each."""
    kinds = (TensorProto.INT32, TensorProto.INT64)
    if len(graph.inputs) == len(graph.outputs) == 1:
        source, target = graph.inputs[0], graph.outputs[0]
        types = source.type.tensor_type, target.type.tensor_type
        fits = types[0].elem_type in kinds and types[1].elem_type == TensorProto.FLOAT
        if fits and all(len(t.shape.dim) == 2 and t.shape.dim[0].dim_value in (0, 1) for t in types):
            return source, target
    found = "; ".join(
        f"{side} {', '.join(_told(value) for value in values) or 'none'}"
        for side, values in (("inputs", graph.inputs), ("outputs", graph.outputs))
    )
    raise ConvertError(where, f"it has the {found}", allowed=_CONTRACT, remedy=f"{_EXPORT}.")


def _told(value: Any) -> str:
    tensor = value.type.tensor_type
    shape = [dim.dim_value or dim.dim_param or "?" for dim in tensor.shape.dim]
    return f"`{value.name}` {TensorProto.DataType.Name(tensor.elem_type).lower()} {shape}".replace("'", "")


def _dimension(value: Any) -> int | None:
    return int(value.type.tensor_type.shape.dim[1].dim_value) or None


def _agreed(where: str, name: str, found: int | None, wanted: int | None) -> int:
    if found is None and wanted is None:
        raise ConvertError(
            where, f"it leaves its {name} open", remedy=f"{_EXPORT}, every size but the batch fixed."
        )
    if found is not None and wanted is not None and found != wanted:
        raise ConvertError(
            where, f"its {name} is {found}", allowed=f"{wanted} is needed", remedy=f"{_EXPORT} for this log."
        )
    size = wanted if found is None else found
    assert size is not None  # noqa: S101  one of the two was given
    return size


def _fitted(graph: Graph, length: int, width: int) -> Graph:
    """Return the graph with the contract's names, types and static shapes."""
    kind = graph.inputs[0].type.tensor_type.elem_type
    inner = "history" if kind == TensorProto.INT32 else "history/int64"
    graph = renamed(graph, {graph.inputs[0].name: inner, graph.outputs[0].name: "scores"})
    cast = helper.make_node("Cast", ["history"], [inner], to=TensorProto.INT64)
    return graph._replace(
        nodes=[cast, *graph.nodes] if inner != "history" else graph.nodes,
        inputs=[helper.make_tensor_value_info("history", TensorProto.INT32, [1, length])],
        outputs=[helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, width])],
    )


def _last_line(done: proc.Completed) -> str:
    lines = (done.stderr_tail or done.stdout.decode("utf-8", "replace")).strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else f"status {done.returncode}"
