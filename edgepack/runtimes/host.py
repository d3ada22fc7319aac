"""Runs an artifact on this machine: LiteRT, tflite-runtime or onnxruntime, in a child process.

A model from elsewhere can end an interpreter with a segmentation fault, so none is loaded in our own process.
"""

import importlib.util
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.errors import ConvertError, MeasureError, ToolError
from edgepack.rows import Rows
from edgepack.runtimes.refusal import lacking_operator
from edgepack.runtimes.worker import mismatch

Engine = Literal["litert", "tflite-runtime", "onnxruntime"]

PACKAGES: dict[str, str] = {
    "litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "onnxruntime": "onnxruntime",
}
_CONTRACT = "the contract is int32 inputs [1, length] and one float32 output `scores` [1, items + 1]"


class Tensor(NamedTuple):
    """One input or output as the engine reports it; an open dimension is -1 or a name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Signature(NamedTuple):
    """What a model takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def run(
    engine: Engine, artifact: Path, inputs: Mapping[str, NDArray[np.int32]], *, deadline_s: float
) -> NDArray[np.float32]:
    """Return the scores of every row, float32 [N, V + 1], backed by a file that is already unlinked.

    `inputs` maps each input of the contract to int32 [N, L]; rows run one by one (batch 1) on one thread.
    Hand over at most some 2,048 rows at a time: N x (V + 1) x 4 bytes go through the temporary folder.

    Raises ConvertError when the artifact breaks the serving contract, MeasureError when the engine cannot
    load or run it or dies of it, ToolError when the engine is not installed, LimitError after `deadline_s`.
    """
    with proc.temporary_folder("edgepack-run-") as folder:
        arrays: dict[str, Any] = {name: np.asarray(value, np.int32) for name, value in inputs.items()}
        np.savez(Path(folder) / "inputs.npz", **arrays)
        raw = _work(engine, artifact, deadline_s, folder)
        wrong = mismatch(raw, {name: value.shape for name, value in arrays.items()})
        if wrong is not None:
            raise ConvertError(
                artifact.name,
                wrong,
                allowed=_CONTRACT,
                remedy="Export the model with these inputs and outputs.",
            )
        # The mapping outlives the name of its file, so that big outputs never lie in memory whole.
        return np.load(Path(folder) / "scores.npy", mmap_mode="r")  # type: ignore[no-any-return]


def signature(artifact: Path, *, engine: Engine | None = None, deadline_s: float = 60) -> Signature:
    """Return what the artifact takes and gives; `engine` is chosen by the file's suffix when not given.

    Raises MeasureError when the engine cannot load it, ToolError when the engine is not installed.
    """
    raw = _work(engine or engine_for(artifact), artifact, deadline_s)
    return Signature(
        *(
            tuple(Tensor(t["name"], t["dtype"], tuple(t["shape"])) for t in raw[side])
            for side in ("inputs", "outputs")
        )
    )


def full_row(model: Path) -> Rows:
    """Return a row for any model of the serving contract, int32 [1, length] an input, without padding.

    The items 1, 2, 3 … up to its length. A `query` repeats id 1: the file does not tell how many there are.

    Raises ConvertError for a model with other inputs or outputs, and what `signature` raises.
    """
    found = signature(model)
    lengths = {t.name: int(t.shape[-1]) for t in found.inputs}
    if set(lengths) not in ({"history"}, {"history", "query"}) or len(found.outputs) != 1:
        names = ", ".join(t.name for t in (*found.inputs, *found.outputs))
        raise ConvertError(
            model.name,
            f"has the inputs and outputs {names}",
            allowed="the contract is `history` int32 [1, L] in (and `query` int32 [1, Q]), `scores` float32 "
            "[1, V + 1] out",
            remedy="Export the model with these.",
        )
    width = int(found.outputs[0].shape[-1])
    largest = {"history": width - 1, "query": 1}
    return {
        name: (np.arange(length, dtype=np.int32) % largest[name] + 1)[None, :]
        for name, length in lengths.items()
    }


def engine_for(artifact: Path) -> Engine:
    """Return the engine that reads files of this suffix: LiteRT for .tflite, else onnxruntime."""
    return "litert" if artifact.suffix == ".tflite" else "onnxruntime"


def _work(engine: Engine, artifact: Path, deadline_s: float, *folder: str) -> dict[str, list[dict[str, Any]]]:
    if importlib.util.find_spec(PACKAGES[engine]) is None:
        raise ToolError(engine, "is not installed", remedy="Install edgepack with the extra `run`.")
    if not artifact.is_file():
        raise MeasureError(str(artifact), "is not a file", remedy="Give the path of a model file.")
    argv: list[str | Path] = [
        sys.executable,
        "-m",
        "edgepack.runtimes.worker",
        engine,
        artifact.resolve(),
        *folder,
    ]
    done = proc.run(argv, deadline_s=deadline_s)
    if done.returncode != 0:
        where = f"{artifact.name} in {engine}"
        raise lacking_operator(where, done.stderr_tail) or MeasureError(
            where,
            _how_it_ended(done),
            remedy="Drop this format for this runtime, or convert the model again.",
        )
    described: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return described


def _how_it_ended(done: proc.Completed) -> str:
    last = (done.stderr_tail.splitlines() or ["it said nothing"])[-1].strip().rstrip(".")
    if done.returncode >= 0:
        return f"the runtime refused it ({last})"
    return f"the runtime died with {signal.Signals(-done.returncode).name} (last words: {last})"
