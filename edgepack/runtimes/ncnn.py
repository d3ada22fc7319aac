"""ncnn's own aarch64 build on an emulated core: counts for calibration, whose published rows are ncnn's."""

import tempfile
from pathlib import Path

from edgepack.errors import MeasureError
from edgepack.profiles import Emulation
from edgepack.runtimes import qemu
from edgepack.runtimes.qemu import Hierarchy, Region, Stage
from edgepack.tools import arm as tools

_GUEST = Path(__file__).with_name("ncnn_guest.py")


def count(
    param: Path,
    input_shape: tuple[int, int, int],
    emulation: Emulation,
    hierarchies: tuple[Hierarchy, ...],
    version: str,
    *,
    deadline_s: float,
) -> Region:
    """Count the second inference of the network in `param` on an input of `input_shape` (w, h, channels).

    Weights are zeros, as in ncnn's own benchmark: what is executed does not depend on them. `version` is one
    of `tools.arm.NCNN_WHEELS`. Raises ConfigError when `emulation` contradicts itself, MeasureError when ncnn
    cannot run the network, LimitError after `deadline_s`, ToolError when a part is missing.
    """
    qemu.check_core(emulation, "arm64")
    sysroot, packages = tools.locate_ncnn(version)
    with tempfile.TemporaryDirectory(prefix="edgepack-ncnn-") as folder:
        stage = Stage(Path(folder), tools.locate(), emulation, "arm64", hierarchies, sysroot)
        qemu.lay_root(stage)
        (stage.folder / "root" / "packages").symlink_to(packages)
        (stage.folder / "guest.py").symlink_to(_GUEST)
        (stage.folder / "net.param").symlink_to(param.resolve())
        python = [
            "-E",
            "PYTHONHASHSEED=0",
            "-E",
            "PYTHONHOME=root/usr",
            "root/usr/bin/python3.11",
            "-S",
            "-B",
        ]
        program = [*python, "guest.py", "net.param", *map(str, input_shape)]
        qemu.run_guest(stage, program, param, cache_counts=True, deadline_s=deadline_s)
        regions = qemu.read_regions(stage)
    if len(regions) != 1:
        raise MeasureError(
            param.name, f"{len(regions)} inferences were counted", remedy="Report this as a bug."
        )
    return regions[0]
