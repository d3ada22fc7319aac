"""Runs a program of another machine under qemu-user as one named core: what both ARM runtimes share.

The guest is cut off from all of the host that could change a count: its environment is empty, its random
seed is fixed, its paths are short and the same everywhere, and the files that describe the CPU are ours.
"""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.errors import ConfigError, ConvertError, LimitError, MeasureError, ToolError
from edgepack.profiles import Cache, Emulation
from edgepack.tools.arm import Located

Machine = Literal["arm64", "armhf"]
Inputs = Mapping[str, NDArray[np.int32]]

BROKEN_CONTRACT = 3
"""Exit status of a guest whose model is not of the serving contract (driver.c, armv7_guest.py)."""

_V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp ssbs"
_V7 = "half thumb fastmult vfp edsp thumbee neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"
_FEATURES: dict[Machine, dict[str, frozenset[str]]] = {
    "arm64": {
        "cortex-a35": frozenset(_V8.split()),
        "cortex-a53": frozenset(_V8.split()),
        "cortex-a57": frozenset(_V8.split()),
        "cortex-a72": frozenset(_V8.split()),
        "cortex-a76": frozenset(_V8_2.split()),
        "neoverse-n1": frozenset(_V8_2.split()),
    },
    "armhf": {"cortex-a7": frozenset(_V7.split()), "cortex-a15": frozenset(_V7.split())},
}
"""What each qemu 7.2 `-cpu` executes, in the words of Linux' /proc/cpuinfo."""

_PARTS_WITHOUT_DOTPROD = {"0xd03", "0xd04", "0xd07", "0xd08", "0xd09"}
"""Cortex-A53, A35, A57, A72 and A73. XNNPACK takes dot products for granted on later parts, whatever the
features line says."""


class Misses(msgspec.Struct, frozen=True):
    """Lines that a cache lacked; `sequential` of them followed one that was lacked shortly before."""

    misses: int
    sequential: int


class Region(msgspec.Struct, frozen=True):
    """Counts between two marks; the ten classes add up to `instructions`.

    The classes are those of the A64 encoding: loads and stores of general and of vector registers; SIMD and
    floating-point multiplies (with or without an addition), divisions and square roots (of integers too),
    and the rest of SIMD and floating point; branches, and everything else (32-bit code is all `other`).
    Misses are of LRU caches with 64-byte lines: one L1I, and the L1D and second levels of the core and then
    those that were asked for, in their order.
    """

    instructions: int
    load: int
    load_vector: int
    store: int
    store_vector: int
    multiply_float: int
    multiply_int: int
    divide: int
    vector: int
    branch: int
    other: int
    l1i: tuple[Misses, ...]
    l1d: tuple[Misses, ...]
    l2: tuple[Misses, ...]

    def behind_the_first(self) -> "Region":
        """Return the same counts without the first L1D and the first L2: the core's own."""
        return msgspec.structs.replace(self, l1d=self.l1d[1:], l2=self.l2[1:])

    def less(self, overhead: "Region") -> "Region":
        """Return what is left when `overhead` is taken off; nothing falls below 0."""
        return msgspec.convert(_less(msgspec.to_builtins(self), msgspec.to_builtins(overhead)), Region)

    @property
    def l1d_misses(self) -> int:
        """Misses of the first L1D: the core's own."""
        return self.l1d[0].misses

    @property
    def l2_misses(self) -> int:
        """Misses of the first L2, the core's own: lines fetched from memory."""
        return self.l2[0].misses


def _less(found: Any, overhead: Any) -> Any:
    if isinstance(found, dict):
        return {name: _less(found[name], overhead[name]) for name in found}
    if isinstance(found, (list, tuple)):
        return [_less(*pair) for pair in zip(found, overhead, strict=True)]
    return max(0, found - overhead)


class Counts(NamedTuple):
    """One inference counted: `cold` is the first of its process, `warm` the third on the same input.

    `peak_memory_bytes` is None where it cannot be had. `scores` float32 [V + 1] are the warm ones.
    """

    warm: Region
    cold: Region
    peak_memory_bytes: int | None
    scores: NDArray[np.float32]


def check_core(emulation: Emulation, machine: Machine) -> None:
    """Raise ConfigError unless `-cpu` executes everything that /proc/cpuinfo will promise to the guest.

    A runtime that is told of an instruction which the core lacks dies of SIGILL, or worse, measures kernels
    that the device would never choose.
    """
    cpus = _FEATURES[machine]
    if emulation.cpu not in cpus:
        raise ConfigError(
            "emulation.cpu",
            f"'{emulation.cpu}' is not a core that can be emulated for {machine}",
            allowed=f"known are {', '.join(cpus)}",
            remedy="Take the one whose instruction set the device has.",
        )
    has = cpus[emulation.cpu]
    lacking = sorted(set(emulation.features.split()) - has)
    if lacking:
        raise ConfigError(
            "emulation.features",
            f"{' '.join(lacking)} cannot be executed by the cpu '{emulation.cpu}'",
            allowed=f"it has {' '.join(sorted(has))}",
            remedy="Name a later cpu or drop these features.",
        )
    if machine == "arm64" and emulation.part not in _PARTS_WITHOUT_DOTPROD and "asimddp" not in has:
        raise ConfigError(
            "emulation.part",
            f"{emulation.part} is a core with dot products, which the cpu '{emulation.cpu}' lacks",
            allowed=f"with it go {', '.join(sorted(_PARTS_WITHOUT_DOTPROD))}",
            remedy="Name a later cpu, or the part of an earlier core.",
        )


class Hierarchy(NamedTuple):
    """One L1D and the second levels to be tried behind it."""

    l1d: Cache
    l2: tuple[Cache, ...]


class Stage(NamedTuple):
    """A working folder: the guest runs in it and names everything by these fixed, relative names.

    `hierarchies` are caches to play after the emulated core's own; `sysroot` holds the guest's programs and
    libraries, those of the machine's runtime unless given.
    """

    folder: Path
    tools: Located
    emulation: Emulation
    machine: Machine
    hierarchies: tuple[Hierarchy, ...] = ()
    sysroot: Path | None = None


def prepare(stage: Stage, artifact: Path, inputs: Inputs) -> list[str]:
    """Lay out `stage.folder` for a guest and return the words that describe the run to it.

    They are MODEL INPUTS OUTPUTS ROWS and, apart, NAME:COLUMNS for each input in the order of the file.
    """
    check_core(stage.emulation, stage.machine)
    if not artifact.is_file():
        raise MeasureError(str(artifact), "is not a file", remedy="Give the path of a model file.")
    lay_root(stage)
    (stage.folder / "model").symlink_to(artifact.resolve())
    with (stage.folder / "inputs").open("wb") as stream:
        for rows in inputs.values():
            stream.write(np.ascontiguousarray(rows, "<i4").tobytes())
    return [f"{name}:{rows.shape[1]}" for name, rows in inputs.items()]


def run_guest(
    stage: Stage, program: Sequence[str], artifact: Path, *, cache_counts: bool, deadline_s: float
) -> bytes:
    """Run a guest program in the stage and return its stdout; with `cache_counts`, `counts` is written there.

    Raises ConvertError for a model outside the contract, MeasureError when the runtime fails or dies,
    LimitError after `deadline_s`, ToolError when qemu takes no plugins.
    """
    qemu = stage.tools.qemu
    words = [str(qemu.aarch64 if stage.machine == "arm64" else qemu.arm), "-seed", "1", "-L", "root"]
    words += ["-cpu", stage.emulation.cpu, "-U", "LD_LIBRARY_PATH"]
    words += ["-plugin", _plugin(stage)] if cache_counts else []
    libraries = [f"LD_LIBRARY_PATH={qemu.libraries}"] if qemu.libraries else []
    where = f"{artifact.name} on emulated {stage.emulation.core}"
    try:
        # Everything of the environment would lie on the guest's stack and move it.
        argv = ["/usr/bin/env", "-i", *libraries, *words, *program]
        done = proc.run(argv, deadline_s=deadline_s, cwd=stage.folder)
    except LimitError as error:
        raise LimitError(where, error.found, allowed=error.allowed, remedy=error.remedy) from error
    if "unknown option 'plugin'" in done.stderr_tail:
        raise ToolError(
            words[0], "takes no plugins", remedy="Run `edgepack setup`, which fetches one that does."
        )
    if done.returncode:
        raise _failure(where, done)
    return done.stdout


def read_scores(stage: Stage, rows: int) -> NDArray[np.float32]:
    """Return what the guest wrote, float32 [rows, V + 1], backed by a file that may be unlinked."""
    flat: NDArray[np.float32] = np.memmap(stage.folder / "outputs", "<f4", "r")
    return flat.reshape(rows, -1)


def read_regions(stage: Stage) -> list[Region]:
    """Return what the plugin counted, region by region."""
    return msgspec.json.decode((stage.folder / "counts").read_bytes(), type=_Counted).regions


class _Counted(msgspec.Struct, frozen=True):
    regions: list[Region]


def _failure(where: str, done: proc.Completed) -> ConvertError | MeasureError:
    said = [line.strip() for line in done.stderr_tail.splitlines() if not line.startswith("INFO:")]
    last = (said or ["it said nothing"])[-1].removeprefix("driver: ").rstrip(".")
    if done.returncode == BROKEN_CONTRACT:
        contract = "the contract is int32 inputs [1, length] and one float32 output `scores` [1, items + 1]"
        return ConvertError(where, last, allowed=contract, remedy="Export the model with these.")
    if done.returncode == -signal.SIGILL:
        found = "the runtime met an instruction that the core lacks"
        return MeasureError(where, found, remedy="Correct `cpu`, `part` and `features` of the profile.")
    remedy = "Drop this format for this target, or convert the model again."
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return MeasureError(where, f"the runtime died with {name} (last words: {last})", remedy=remedy)
    return MeasureError(where, f"the runtime refused it ({' / '.join(said[-2:]) or last})", remedy=remedy)


def _plugin(stage: Stage) -> str:
    core = stage.emulation
    words = [f"l1i={_geometry(core.l1i)}"]
    for l1d, seconds in (Hierarchy(core.l1d, (core.l2,)), *stage.hierarchies):
        words += [f"l1d={_geometry(l1d)}", *(f"l2={_geometry(second)}" for second in seconds)]
    return f"file={stage.tools.counter},out=counts,mode=cache,{','.join(words)}"


def _geometry(cache: Cache) -> str:
    return f"{cache.size_bytes}/{cache.ways}"


_CPUINFO = """\
processor\t: 0
model name\t: {core}
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: {architecture}
CPU variant\t: {variant}
CPU part\t: {part}
CPU revision\t: 4

"""


def lay_root(stage: Stage) -> None:
    """Build the guest's view of `/`: qemu looks for every absolute path here before it looks on the host."""
    root = stage.folder / "root"
    sysroot = stage.sysroot or (stage.tools.arm64 if stage.machine == "arm64" else stage.tools.armhf)
    core = stage.emulation
    cpuinfo = _CPUINFO.format(
        core=core.core,
        features=core.features,
        variant=core.variant,
        part=core.part,
        architecture=8 if stage.machine == "arm64" else 7,
    )
    files = {
        "proc/cpuinfo": cpuinfo,
        "sys/devices/system/cpu/possible": "0\n",
        "sys/devices/system/cpu/present": "0\n",
        "etc/ld.so.cache": "",
        "etc/ld.so.preload": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in ("lib", "usr"):
        (root / name).symlink_to(sysroot / name)
