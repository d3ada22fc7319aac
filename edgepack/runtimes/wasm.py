"""The web runtimes in headless Chromium, and onnxruntime-web in Node: one thread, WebAssembly only, batch 1.

onnxruntime-web runs `.onnx` and `.ort` files, LiteRT.js `.tflite` ones, with the runtime files that also ship
and the code that `embed` writes around them.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.errors import ConvertError, LimitError, MeasureError
from edgepack.tools import web
from edgepack.tools.web_runtimes import PACKAGES, locate_runtime

Inputs = Mapping[str, NDArray[np.int32]]
_LONGEST_BASE = 35
_JAVASCRIPT = Path(__file__).parent / "web"
# What an app's own engine does with code whose bytes it has checked is what is measured.
_APP = Path(__file__).parents[1] / "embed" / "templates" / "web" / "engine.mjs"


def runtime_of(artifact: Path) -> str:
    """Return the name of the runtime that runs a file of this suffix, a key of PACKAGES."""
    return "litertjs" if artifact.suffix == ".tflite" else "onnxruntime-web"


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine showed of one artifact. `samples_ms` are means over `batch_runs` runs each.

    `runtime_load_ms` is the runtime's fetch, compilation and start; `load_ms` the model's fetch and
    session; `first_ms` its first run. `cpu_ms` is CPU time per run, 0 where it cannot be read.
    `peak_memory_bytes` is the high-water mark of the WebAssembly heap.
    """

    runtime_load_ms: float
    load_ms: float
    first_ms: float
    samples_ms: list[float]
    batch_runs: int
    cpu_ms: float
    peak_memory_bytes: int
    host_benchmark_ms: float | None = None
    throttled_benchmark_ms: float | None = None


class ChromiumTiming(msgspec.Struct, frozen=True, kw_only=True):
    """One timed page, the heap's high-water mark of a second fresh page, and the browser's version."""

    timing: Timing
    repeated_peak_memory_bytes: int
    chromium_version: str


def run_node(artifact: Path, inputs: Inputs, *, deadline_s: float) -> NDArray[np.float32]:
    """Run every row of `inputs` (name -> int32 [N, width]) in one Node process; scores float32 [N, V+1].

    LiteRT.js is for browsers, so no `.tflite`. Raises ConvertError when the artifact's signature is another,
    MeasureError when it cannot be run, ToolError when Node or the runtime is missing, LimitError when
    `deadline_s` passes.
    """
    with _workplace(artifact, inputs) as folder:
        answer = _in_node(artifact, folder, _job(artifact, inputs, "run", base=folder), deadline_s)
        return _scores(folder, answer)


def run_chromium(artifact: Path, inputs: Inputs, *, deadline_s: float) -> NDArray[np.float32]:
    """Run every row of `inputs` in one page of headless Chromium; as `run_node` otherwise."""
    with _workplace(artifact, inputs) as folder:
        answers = _in_chromium(artifact, folder, [_job(artifact, inputs, "run")], deadline_s)
        return _scores(folder, answers["jobs"][0])


def time_node(artifact: Path, inputs: Inputs, *, deadline_s: float) -> Timing:
    """Time the artifact in Node, going round the rows of `inputs`; raises as `run_node`."""
    with _workplace(artifact, inputs) as folder:
        answer = _in_node(artifact, folder, _job(artifact, inputs, "time", base=folder), deadline_s)
        return msgspec.convert(answer, Timing)


def time_chromium(
    artifact: Path, inputs: Inputs, *, cpu_throttle_rate: float, deadline_s: float
) -> ChromiumTiming:
    """Time the artifact on the main thread of headless Chromium, slowed down `cpu_throttle_rate` times.

    A second fresh page runs every row once, so that the caller sees whether the heap's size repeats.
    Raises as `run_node`, and ToolError when Chromium is missing.
    """
    with _workplace(artifact, inputs) as folder:
        timed = _job(artifact, inputs, "time", cpu_throttle_rate=cpu_throttle_rate)
        jobs = [timed, _job(artifact, inputs, "run")]
        answers = _in_chromium(artifact, folder, jobs, deadline_s)
    first, repeated = answers["jobs"]
    return ChromiumTiming(
        timing=msgspec.convert(first, Timing),
        repeated_peak_memory_bytes=repeated["peak_memory_bytes"],
        chromium_version=answers["version"],
    )


@contextmanager
def _workplace(artifact: Path, inputs: Inputs) -> Iterator[Path]:
    """A folder that is both the web root and the place of all files, gone afterwards."""
    runtime = locate_runtime(runtime_of(artifact))
    # Chromium puts a socket below this folder, and a socket's path has at most 107 characters.
    usual = tempfile.gettempdir()
    base = usual if len(usual) <= _LONGEST_BASE else "/tmp"  # noqa: S108
    folder = Path(tempfile.mkdtemp(prefix="edgepack-web-", dir=base))
    try:
        (folder / "app.mjs").symlink_to(_APP)
        own = (_JAVASCRIPT / "engine.mjs", _JAVASCRIPT / "page.html", runtime.adapter)
        for source in (*runtime.files.values(), *own):
            (folder / source.name).symlink_to(source)
        (folder / f"model{artifact.suffix}").symlink_to(artifact.resolve())
        for key, rows in inputs.items():
            np.ascontiguousarray(rows, dtype="<i4").tofile(folder / f"{key}.bin")
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    # After a deadline or Ctrl-C the browser still writes into its profile while it ends.
    for _ in range(30):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _job(
    artifact: Path, inputs: Inputs, mode: str, *, base: Path | None = None, cpu_throttle_rate: float = 1.0
) -> dict[str, Any]:
    def at(name: str) -> str:
        return str(base / name) if base else f"./{name}"

    name = runtime_of(artifact)
    return {
        "mode": mode,
        "rows": _row_count(inputs),
        "runtime": name,
        "adapter": f"./{PACKAGES[name].adapter}",
        "files": {part: at(Path(path).name) for part, path in PACKAGES[name].files.items()},
        "scores": at("scores.bin"),
        "inputs": {key: {"file": at(f"{key}.bin"), "width": rows.shape[1]} for key, rows in inputs.items()},
        "cpu_throttle_rate": cpu_throttle_rate,
    }


def _row_count(inputs: Inputs) -> int:
    counts = {rows.shape[0] for rows in inputs.values()}
    if len(counts) != 1 or not all(rows.ndim == 2 for rows in inputs.values()) or 0 in counts:
        raise ValueError(f"inputs must be 2-D with the same number of rows, at least 1; found {counts}")
    return counts.pop()


def _place(artifact: Path, engine: str) -> str:
    name = runtime_of(artifact)
    return f"{name} {PACKAGES[name].version} in {engine}"


def _in_node(artifact: Path, folder: Path, job: dict[str, Any], deadline_s: float) -> dict[str, Any]:
    place = _place(artifact, "Node")
    job["model"] = str(folder / f"model{artifact.suffix}")
    (folder / "jobs.json").write_text(json.dumps(job), "utf-8")
    argv: list[str | Path] = [web.locate_node(), _JAVASCRIPT / "node.mjs", folder / "jobs.json"]
    answer: dict[str, Any] = json.loads(_run(place, artifact, argv, deadline_s, {}))
    return _checked(place, artifact, answer)


def _in_chromium(
    artifact: Path, folder: Path, jobs: list[dict[str, Any]], deadline_s: float
) -> dict[str, Any]:
    place = _place(artifact, "Chromium")
    for job in jobs:
        job["model"] = f"./model{artifact.suffix}"
    web.locate_playwright()
    order = {"chromium": str(web.locate_chromium()), "jobs": jobs}
    (folder / "jobs.json").write_text(json.dumps(order), "utf-8")
    # TMPDIR: the browser's profile, too, goes when the folder goes, however this ends.
    argv: list[str | Path] = [sys.executable, "-m", "edgepack.runtimes.chromium", folder]
    _run(place, artifact, argv, deadline_s, {"TMPDIR": str(folder)})
    answers: dict[str, Any] = json.loads((folder / "answers.json").read_text("utf-8"))
    if "error" in answers:
        raise _failed(place, artifact, str(answers["error"]))
    for answer in answers["jobs"]:
        _checked(place, artifact, answer)
    return answers


def _run(place: str, artifact: Path, argv: list[str | Path], deadline_s: float, env: dict[str, str]) -> bytes:
    try:
        done = proc.run(argv, deadline_s=deadline_s, env=env)
    except LimitError as error:
        raise LimitError(
            place,
            f"{artifact.name} was still running after {deadline_s:.0f} s",
            allowed="that is its deadline",
            remedy="Run fewer rows at a time, or a smaller model.",
        ) from error
    if done.returncode:
        last = (done.stderr_tail.splitlines() or ["no message"])[-1]
        raise _failed(place, artifact, f"{Path(argv[0]).name} ended with status {done.returncode} ({last})")
    return done.stdout


def _checked(place: str, artifact: Path, answer: dict[str, Any]) -> dict[str, Any]:
    if "error" not in answer:
        return answer
    if answer["kind"] == "signature":
        raise ConvertError(
            artifact.name,
            answer["error"],
            allowed="a web artifact takes int32 [1, L] inputs and gives float32 'scores'",
            remedy="Convert the model again with that signature.",
        )
    raise _failed(place, artifact, answer["error"])


def _failed(place: str, artifact: Path, found: str) -> MeasureError:
    return MeasureError(
        place,
        f"cannot run {artifact.name}: {found}",
        remedy="Choose another format, or run `edgepack doctor`.",
    )


def _scores(folder: Path, answer: dict[str, Any]) -> NDArray[np.float32]:
    return np.fromfile(folder / "scores.bin", dtype="<f4").reshape(-1, answer["width"])
