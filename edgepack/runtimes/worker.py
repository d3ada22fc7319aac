"""The child process that runs a model: `python -m edgepack.runtimes.worker ENGINE ARTIFACT [FOLDER]`.

It imports NumPy and the one engine it was asked for, nothing else. Without FOLDER it writes the model's
signature as JSON to stdout; with it, it also runs every row of FOLDER/inputs.npz and leaves
FOLDER/scores.npy. An error of the engine ends it with a traceback, whose last line is what the parent quotes.
"""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = dict[str, NDArray[np.int32]]


class Loaded(NamedTuple):
    """A model ready to run: its signature, and a function from one row per input to one row of scores."""

    signature: dict[str, list[dict[str, Any]]]
    invoke: Callable[[Rows], NDArray[np.float32]]


def short_name(tensor: str) -> str:
    """Return the contract's name in a TFLite tensor name such as `serving_default_history:0`."""
    return tensor.removeprefix("serving_default_").split(":")[0]


def load_litert(artifact: str) -> Loaded:
    """Load a TFLite file with LiteRT: one thread, XNNPACK as by default."""
    from ai_edge_litert.interpreter import Interpreter

    return _load_tflite(Interpreter(model_path=artifact, num_threads=1))


def load_tflite_runtime(artifact: str) -> Loaded:
    """Load a TFLite file with tflite-runtime: one thread, its default kernels."""
    from tflite_runtime.interpreter import Interpreter

    return _load_tflite(Interpreter(model_path=artifact, num_threads=1))


def load_onnxruntime(artifact: str) -> Loaded:
    """Load an .onnx or .ort file with onnxruntime: CPU, one thread, every optimization."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    signature = {
        "inputs": [_described(i.name, i.type, i.shape) for i in session.get_inputs()],
        "outputs": [_described(o.name, o.type, o.shape) for o in session.get_outputs()],
    }
    outputs = [session.get_outputs()[0].name]

    def invoke(row: Rows) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = session.run(outputs, row)[0]
        return scores

    return Loaded(signature, invoke)


LOADERS: dict[str, Callable[[str], Loaded]] = {
    "litert": load_litert,
    "tflite-runtime": load_tflite_runtime,
    "onnxruntime": load_onnxruntime,
}


def _load_tflite(interpreter: Any) -> Loaded:
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    indices = {short_name(detail["name"]): detail["index"] for detail in inputs}
    signature = {
        side: [
            _described(short_name(d["name"]), np.dtype(d["dtype"]).name, d["shape_signature"].tolist())
            for d in details
        ]
        for side, details in (("inputs", inputs), ("outputs", outputs))
    }

    def invoke(row: Rows) -> NDArray[np.float32]:
        # A single input goes in whatever it is called: converters rename it at will.
        for name, value in row.items():
            interpreter.set_tensor(indices[name] if name in indices else inputs[0]["index"], value)
        interpreter.invoke()
        scores: NDArray[np.float32] = interpreter.get_tensor(outputs[0]["index"])
        return scores

    return Loaded(signature, invoke)


def _described(name: str, kind: str, shape: list[Any]) -> dict[str, Any]:
    # onnxruntime says "tensor(float)" where NumPy says "float32".
    kind = kind.removeprefix("tensor(").removesuffix(")")
    kind = {"float": "float32", "double": "float64"}.get(kind, kind)
    return {"name": name, "dtype": kind, "shape": shape}


def mismatch(found: dict[str, list[dict[str, Any]]], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return how a signature (as the worker writes it) differs from the contract, or None.

    `shapes` maps each input to the shape [N, L] of what will be fed, row by row.
    """
    wanted = {name: ["int32", [1, shape[1]]] for name, shape in shapes.items()}
    given = {tensor["name"]: [tensor["dtype"], tensor["shape"]] for tensor in found["inputs"]}
    if len(wanted) == len(given) == 1:
        given = dict(zip(wanted, given.values(), strict=True))
    if given != wanted:
        return f"its inputs are {_told(given)} where {_told(wanted)} is fed"
    outputs = {tensor["name"]: [tensor["dtype"], tensor["shape"]] for tensor in found["outputs"]}
    dtype, shape = next(iter(outputs.values()))
    is_scores = dtype == "float32" and len(shape) == 2 and shape[0] == 1
    if len(outputs) != 1 or not is_scores or not isinstance(shape[1], int) or shape[1] < 2:
        return f"its outputs are {_told(outputs)}"
    return None


def _told(tensors: Mapping[str, list[Any]]) -> str:
    return ", ".join(f"`{name}` {dtype} {shape}" for name, (dtype, shape) in tensors.items()) or "none"


def _run_rows(loaded: Loaded, inputs: Rows, scores_path: Path) -> None:
    if len(inputs) == 1:
        inputs = {loaded.signature["inputs"][0]["name"]: next(iter(inputs.values()))}
    rows = len(next(iter(inputs.values())))
    width = loaded.signature["outputs"][0]["shape"][1]
    scores = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        scores_path, mode="w+", dtype=np.float32, shape=(rows, width)
    )
    for row in range(rows):
        scores[row] = loaded.invoke({name: value[row : row + 1] for name, value in inputs.items()})[0]
    scores.flush()


def main(words: list[str]) -> None:
    """Load, describe and, when a folder is given and the signature is the contract's, run."""
    loaded = LOADERS[words[0]](words[1])
    sys.stdout.write(json.dumps(loaded.signature))
    sys.stdout.flush()
    if len(words) > 2:
        folder = Path(words[2])
        with np.load(folder / "inputs.npz") as kept:
            inputs = {name: kept[name] for name in kept.files}
        if mismatch(loaded.signature, {name: value.shape for name, value in inputs.items()}) is None:
            _run_rows(loaded, inputs, folder / "scores.npy")


if __name__ == "__main__":
    main(sys.argv[1:])
