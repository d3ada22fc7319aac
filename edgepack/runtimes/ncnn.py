"""ncnn's own aarch64 build on an emulated core: counts for calibration, whose published rows are ncnn's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edgepack import proc
from edgepack.errors import DataError, MeasureError
from edgepack.profiles import Emulation
from edgepack.runtimes import qemu
from edgepack.runtimes.qemu import Hierarchy, Region, Stage
from edgepack.tools import arm as tools

_GUEST = Path(__file__).with_name("ncnn_guest.py")
_PYTHON = ["-E", "PYTHONHASHSEED=0", "-E", "PYTHONHOME=root/usr", "root/usr/bin/python3.11", "-S", "-B"]


_WEIGHTS = {"Convolution": 6, "ConvolutionDepthWise": 6, "Deconvolution": 6, "InnerProduct": 2}
"""Layers that multiply by weights, and the key of the .param line that says how many."""


class Arithmetic(NamedTuple):
    """What a network takes on paper: multiply-accumulates of an inference, and weights."""

    macs: int
    parameters: int


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
    with _stage(param, emulation, hierarchies, version) as stage:
        program = [*_PYTHON, "guest.py", "net.param", *map(str, input_shape)]
        _run(stage, program, param, cache_counts=True, deadline_s=deadline_s)
        regions = qemu.read_regions(stage)
    if len(regions) != 1:
        found = f"{len(regions)} inferences were counted"
        raise MeasureError(param.name, found, remedy="Report this as a bug.")
    return regions[0].behind_the_first()


def arithmetic(
    param: Path, input_shape: tuple[int, int, int], emulation: Emulation, version: str, *, deadline_s: float
) -> Arithmetic:
    """Return multiply-accumulates and weights of a network, its blobs' shapes as ncnn computes them.

    Raises as `count` does, and DataError for a file that is no network.
    """
    weights = _weights(param)
    with _stage(param, emulation, (), version) as stage:
        program = [*_PYTHON, "guest.py", "net.param", *map(str, input_shape), *weights]
        said = _run(stage, program, param, cache_counts=False, deadline_s=deadline_s).decode()
    macs = 0
    for line in said.splitlines():
        name, width, height = line.split()
        fully_connected = weights[name].fully_connected
        macs += weights[name].numbers * (1 if fully_connected else int(width) * int(height))
    return Arithmetic(macs, sum(weight.numbers for weight in weights.values()))


def _run(stage: Stage, program: list[str], param: Path, *, cache_counts: bool, deadline_s: float) -> bytes:
    try:
        return qemu.run_guest(stage, program, param, cache_counts=cache_counts, deadline_s=deadline_s)
    except MeasureError as error:
        remedy = "Give a network file, and the size of its input, that ncnn itself can run."
        raise MeasureError(param.name, error.found, remedy=remedy) from error


class _Weight(NamedTuple):
    numbers: int
    fully_connected: bool


def _weights(param: Path) -> dict[str, _Weight]:
    """Return what each layer with weights has, by the blob that it makes."""
    found = {}
    try:
        for line in param.read_text("utf-8").splitlines()[2:]:
            kind, _, bottoms, tops, *rest = line.split()
            if kind not in _WEIGHTS:
                continue
            blobs, pairs = rest[: int(bottoms) + int(tops)], rest[int(bottoms) + int(tops) :]
            numbers = int(dict(pair.split("=", 1) for pair in pairs)[str(_WEIGHTS[kind])])
            found[blobs[-1]] = _Weight(numbers, kind == "InnerProduct")
    except (ValueError, KeyError, IndexError) as error:
        remedy = "Delete it from the folder, or write it again."
        raise DataError(str(param), f"is not a network file of ncnn ({error})", remedy=remedy) from error
    return found


@contextmanager
def _stage(
    param: Path, emulation: Emulation, hierarchies: tuple[Hierarchy, ...], version: str
) -> Iterator[Stage]:
    qemu.check_core(emulation, "arm64")
    sysroot, packages = tools.locate_ncnn(version)
    with proc.temporary_folder("edgepack-ncnn-") as folder:
        stage = Stage(Path(folder), tools.locate(), emulation, "arm64", hierarchies, sysroot)
        qemu.lay_root(stage)
        (stage.folder / "root" / "packages").symlink_to(packages)
        (stage.folder / "guest.py").symlink_to(_GUEST)
        (stage.folder / "net.param").symlink_to(param.resolve())
        yield stage
