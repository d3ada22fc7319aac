"""Every engine behind one call: `scores(engine, artifact, rows)`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.errors import ConfigError
from edgepack.profiles import Emulation, Profile
from edgepack.rows import Rows, named, part, row_count

CHUNK_ROWS = 1_024
"""Rows run by one process: their scores pass through a file, so a large catalogue stays affordable."""

HOST_ENGINES = {"onnxruntime-web": "ort-web-node", "litertjs": "litert"}
"""What runs a web runtime's models on this machine: the same code in Node; LiteRT.js needs a browser."""
_IN_CHROMIUM = {"onnxruntime-web": "ort-web-chromium", "litertjs": "litert-web-chromium"}


class Engine(NamedTuple):
    """A runtime on a machine: `emulation` names the core when it is not this one."""

    name: str
    emulation: Emulation | None = None


def scores(
    engine: Engine, artifact: Path, rows: NDArray[np.int32] | Rows, *, deadline_s: float = 600
) -> NDArray[np.float32]:
    """Return float32 [N, V + 1] for int32 [N, length] an input, each row run at batch 1 on one thread.

    Raises MeasureError, ConvertError or LimitError as the engine's own module says.
    """
    return _RUN[engine.name](engine, artifact, named(rows), deadline_s)


def score_chunks(
    engine: Engine,
    artifact: Path,
    rows: NDArray[np.int32] | Rows,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[NDArray[np.float32]]:
    """Yield the scores of CHUNK_ROWS rows at a time, in order; `tell` hears of rows done."""
    total = row_count(rows)
    for start in range(0, total, CHUNK_ROWS):
        yield scores(engine, artifact, part(rows, start, start + CHUNK_ROWS))
        tell(min(start + CHUNK_ROWS, total), total)


def host_engine(profile: Profile) -> Engine:
    """Return the engine on this machine that runs the target's runtime: same code, this CPU."""
    return Engine(HOST_ENGINES.get(profile.runtime.name, profile.runtime.name))


def device_engine(profile: Profile) -> Engine:
    """Return the engine that is the target itself: emulated, or a real browser."""
    if profile.platform == "web-wasm":
        return Engine(_IN_CHROMIUM[profile.runtime.name])
    return Engine(f"{profile.runtime.name}-{profile.platform.partition('-')[2]}", profile.emulation)


def _host(engine: Engine, artifact: Path, rows: Rows, deadline_s: float) -> NDArray[np.float32]:
    from edgepack.runtimes import host

    return host.run(engine.name, artifact, rows, deadline_s=deadline_s)  # type: ignore[arg-type]


def _web(engine: Engine, artifact: Path, rows: Rows, deadline_s: float) -> NDArray[np.float32]:
    from edgepack.runtimes import wasm

    run = wasm.run_node if engine.name == "ort-web-node" else wasm.run_chromium
    return run(artifact, rows, deadline_s=deadline_s)


def _arm64(engine: Engine, artifact: Path, rows: Rows, deadline_s: float) -> NDArray[np.float32]:
    from edgepack.runtimes import arm

    return arm.run(artifact, rows, _core(engine), deadline_s=deadline_s)


def _armv7(engine: Engine, artifact: Path, rows: Rows, deadline_s: float) -> NDArray[np.float32]:
    from edgepack.runtimes import armv7

    return armv7.run(artifact, rows, _core(engine), deadline_s=deadline_s)


def _core(engine: Engine) -> Emulation:
    if engine.emulation is None:
        raise ConfigError(
            engine.name,
            "runs on an emulated core and none is given",
            remedy="Add an [emulation] table to the target's profile.",
        )
    return engine.emulation


_RUN = {
    "litert": _host,
    "tflite-runtime": _host,
    "onnxruntime": _host,
    "ort-web-node": _web,
    "ort-web-chromium": _web,
    "litert-web-chromium": _web,
    "litert-arm64": _arm64,
    "tflite-runtime-armv7": _armv7,
}
