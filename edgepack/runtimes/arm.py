"""LiteRT's own aarch64 build on an emulated core: `run` for scores, `count` for what an inference costs.

The same library that an Android app ships runs here, with the kernels that it picks on the named core.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.profiles import Emulation
from edgepack.runtimes import qemu
from edgepack.runtimes.qemu import Counts, Hierarchy, Inputs, Region, Stage
from edgepack.tools import arm as tools

PAGE_BYTES = 4096
WARM = 3
"""The inference that counts as warm. From the second on, XNNPACK executes the same instructions each time."""
EACH = 2
"""The inference that counts where many models run in one process: one less for each saves a third."""
ROOM_BYTES = 100_000_000
"""How much of models lies in a folder at a time."""

MEMORY_SOURCE = (
    "high-water mark of the guest's heap and anonymous mappings, plus the 4 KiB pages of the mapped model "
    "that were read; the runtime's own code and static data are not in it"
)


def run(artifact: Path, inputs: Inputs, emulation: Emulation, *, deadline_s: float) -> NDArray[np.float32]:
    """Return the scores of every row, float32 [N, V + 1], as the emulated core computes them.

    `inputs` maps each input of the contract to int32 [N, L]; rows run one by one (batch 1) on one thread of
    one process, with XNNPACK. An emulated core does some 10^7 (float) to 10^8 (int8) instructions a second.

    Raises ConfigError when the profile contradicts itself, ConvertError for a model outside the contract,
    MeasureError when LiteRT cannot run it or dies, ToolError when a part is missing, LimitError after
    `deadline_s`.
    """
    with proc.temporary_folder("edgepack-arm-") as folder:
        stage = Stage(Path(folder), tools.locate(), emulation, "arm64")
        _drive(stage, artifact, inputs, deadline_s=deadline_s)
        return qemu.read_scores(stage, _rows(inputs))


def count(
    artifact: Path,
    inputs: Inputs,
    emulation: Emulation,
    *,
    hierarchies: tuple[Hierarchy, ...] = (),
    deadline_s: float,
) -> Counts:
    """Count one inference on one row (int32 [1, L] each): instructions, cache misses, peak memory.

    The core's own caches are played first, and `hierarchies` beside them.

    The figures repeat to the unit in every process and on every host. Counting and memory are two processes,
    for watching the model's pages costs instructions. Raises as `run` does.
    """
    counted, scores = _counted(artifact, inputs, emulation, hierarchies, deadline_s)
    with proc.temporary_folder("edgepack-arm-") as folder:
        stage = Stage(Path(folder), tools.locate(), emulation, "arm64")
        memory = _drive(stage, artifact, _repeated(inputs), deadline_s=deadline_s, watch_pages=True)
    peak = memory["heap_peak_bytes"] + memory["model_pages"] * PAGE_BYTES
    return Counts(counted[-1], counted[0], peak, scores)


def regions(
    artifact: Path,
    inputs: Inputs,
    emulation: Emulation,
    *,
    hierarchies: tuple[Hierarchy, ...] = (),
    deadline_s: float,
) -> list[Region]:
    """Count the first WARM inferences as `count` does, one region each, and no memory."""
    return _counted(artifact, inputs, emulation, hierarchies, deadline_s)[0]


def _counted(
    artifact: Path,
    inputs: Inputs,
    emulation: Emulation,
    hierarchies: tuple[Hierarchy, ...],
    deadline_s: float,
) -> tuple[list[Region], NDArray[np.float32]]:
    with proc.temporary_folder("edgepack-arm-") as folder:
        stage = Stage(Path(folder), tools.locate(), emulation, "arm64", hierarchies)
        _drive(stage, artifact, _repeated(inputs), deadline_s=deadline_s, counted=True)
        return qemu.read_regions(stage), np.array(qemu.read_scores(stage, WARM)[-1])


def _repeated(inputs: Inputs) -> Inputs:
    return {name: np.repeat(row, WARM, axis=0) for name, row in inputs.items()}


class Prefix(NamedTuple):
    """One of several models that ran in one process: its second inference, and the operators XNNPACK took."""

    warm: Region
    in_xnnpack: frozenset[int]


def count_each(
    models: Iterable[bytes], where: Path, inputs: Inputs, emulation: Emulation, *, deadline_s: float
) -> list[Prefix]:
    """Count the second inference of each model on one row (int32 [1, L] each), many models in a process.

    Starting a guest and translating its code then happen once for ROOM_BYTES of models. The outputs may be
    of any number and type. `where` names the file that the models come from. Raises as `run` does, with
    `deadline_s` for each process.
    """
    found: list[Prefix] = []
    for several in _batches(models):
        with proc.temporary_folder("edgepack-arm-") as folder:
            stage = Stage(Path(folder), tools.locate(), emulation, "arm64")
            found += _drive_each(stage, several, where, inputs, deadline_s=deadline_s)
    return found


def _batches(models: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for model in models:
        if batch and sum(map(len, batch)) + len(model) > ROOM_BYTES:
            yield batch
            batch = []
        batch.append(model)
    if batch:
        yield batch


def _drive_each(
    stage: Stage, models: Sequence[bytes], where: Path, inputs: Inputs, *, deadline_s: float
) -> list[Prefix]:
    columns = qemu.prepare(stage, where, inputs)
    (stage.folder / "driver").symlink_to(stage.tools.driver)
    for number, model in enumerate(models, 1):
        (stage.folder / str(number)).write_bytes(model)
    program = ["./driver", "each", str(len(models)), "inputs", *columns]
    said = qemu.run_guest(stage, program, where, cache_counts=True, deadline_s=deadline_s)
    taken = [frozenset(json.loads(line)) for line in said.splitlines()]
    return [Prefix(*pair) for pair in zip(qemu.read_regions(stage)[EACH - 1 :: EACH], taken, strict=True)]


def _drive(
    stage: Stage,
    artifact: Path,
    inputs: Inputs,
    *,
    deadline_s: float,
    counted: bool = False,
    watch_pages: bool = False,
) -> dict[str, int]:
    columns = qemu.prepare(stage, artifact, inputs)
    (stage.folder / "driver").symlink_to(stage.tools.driver)
    rows, watched = str(_rows(inputs)), str(int(watch_pages))
    program = ["./driver", "model", "inputs", "outputs", rows, watched, *columns]
    said = qemu.run_guest(stage, program, artifact, cache_counts=counted, deadline_s=deadline_s)
    memory: dict[str, int] = json.loads(said)
    return memory


def _rows(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())))
