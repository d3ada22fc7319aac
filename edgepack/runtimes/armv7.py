"""tflite-runtime 2.14.0 on an emulated 32-bit ARM core: a stand-in, for LiteRT has no build for it.

The wheel's interpreter can only be called from Python, so an armhf CPython runs `armv7_guest.py`.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.profiles import Emulation
from edgepack.runtimes import qemu
from edgepack.runtimes.qemu import Counts, Hierarchy, Inputs, Stage
from edgepack.tools import arm as tools

WARM = 3
MEMORY_SOURCE = "not measured: this runtime lives inside a Python process, whose memory a phone does not have"

_GUEST = Path(__file__).with_name("armv7_guest.py")


def run(artifact: Path, inputs: Inputs, emulation: Emulation, *, deadline_s: float) -> NDArray[np.float32]:
    """Return the scores of every row, float32 [N, V + 1], as the emulated core computes them.

    `inputs` maps each input of the contract to int32 [N, L]; rows run one by one (batch 1) on one thread of
    one process, which takes some 5 s to start. Raises as `edgepack.runtimes.arm.run` does.
    """
    with proc.temporary_folder("edgepack-arm-") as folder:
        stage = Stage(Path(folder), tools.locate(), emulation, "armhf")
        _drive(stage, artifact, inputs, counted=False, deadline_s=deadline_s)
        return qemu.read_scores(stage, len(next(iter(inputs.values()))))


def count(
    artifact: Path,
    inputs: Inputs,
    emulation: Emulation,
    *,
    hierarchies: tuple[Hierarchy, ...] = (),
    deadline_s: float,
) -> Counts:
    """Count one inference on one row (int32 [1, L] each); its peak memory cannot be had.

    The core's own caches are played first, and `hierarchies` beside them.

    An empty region, marked in the same way, is taken off: what is left still holds the Python call of the
    interpreter's `Invoke`. Raises as `edgepack.runtimes.arm.run` does.
    """
    with proc.temporary_folder("edgepack-arm-") as folder:
        stage = Stage(Path(folder), tools.locate(), emulation, "armhf", hierarchies)
        repeated = {name: np.repeat(row, WARM, axis=0) for name, row in inputs.items()}
        _drive(stage, artifact, repeated, counted=True, deadline_s=deadline_s)
        *regions, empty = qemu.read_regions(stage)
        warm, cold = regions[-1].less(empty), regions[0].less(empty)
        return Counts(warm, cold, None, np.array(qemu.read_scores(stage, WARM)[-1]))


def _drive(stage: Stage, artifact: Path, inputs: Inputs, *, counted: bool, deadline_s: float) -> None:
    columns = qemu.prepare(stage, artifact, inputs)
    (stage.folder / "guest.py").symlink_to(_GUEST)
    rows = str(len(next(iter(inputs.values()))))
    # Without site packages and with hashing fixed: the same start on every host. The home is named because
    # qemu 7.2 does not look into its -L folder when a 32-bit guest calls statx.
    options = ["-E", "PYTHONHASHSEED=0", "-E", "PYTHONHOME=root/usr"]
    python = [*options, "root/usr/bin/python3.11", "-S", "-B"]
    program = [*python, "guest.py", "model", "inputs", "outputs", rows, str(int(counted)), *columns]
    qemu.run_guest(stage, program, artifact, cache_counts=counted, deadline_s=deadline_s)
