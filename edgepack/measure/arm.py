"""What an inference costs on an emulated ARM core: exact counts, and milliseconds modelled from them."""

from pathlib import Path
from types import ModuleType

from edgepack.errors import ConfigError
from edgepack.latency.devices import device_named
from edgepack.measure import modelled
from edgepack.profiles import Profile
from edgepack.results import Measurement, Number
from edgepack.runtimes import arm, armv7
from edgepack.runtimes.qemu import Counts, Inputs
from edgepack.tools import arm as tools

DEADLINE_S = 300

_ENGINES: dict[str, tuple[ModuleType, str, str]] = {
    "litert": (arm, tools.LITERT_VERSION, "LiteRT"),
    "tflite-runtime": (armv7, tools.TFLITE_RUNTIME_VERSION, "the stand-in runtime tflite-runtime"),
}


def measure(
    artifact: Path, sha256: str, profile: Profile, inputs: Inputs, *, deadline_s: float = DEADLINE_S
) -> Measurement:
    """Measure one artifact on one ARM target with one row (`inputs`: int32 [1, L] each).

    Gives the numbers `instructions`, `l1d_misses`, `l2_misses` (third inference on the same row),
    `instructions_cold` (first inference of the process), `peak_memory_bytes`, and `latency_p50_ms`, modelled
    on the profile's devices. Raises ConfigError when the profile names no core, a runtime version that is not
    the installed one or a device that is not known, and what `edgepack.runtimes.arm.count` raises.
    """
    emulation = profile.emulation
    if emulation is None:
        raise ConfigError(profile.name, "has no [emulation] table", remedy="Say there which core it has.")
    engine, version, spoken = _engine(profile)
    devices = [device_named(name) for name in profile.devices]
    beside = modelled.played_beside(emulation, devices)
    counts = engine.count(artifact, inputs, emulation, hierarchies=beside, deadline_s=deadline_s)
    counted = modelled.Counted(artifact, inputs, emulation, counts)
    latency = modelled.latency(counted, devices, deadline_s=deadline_s)
    qemu = tools.locate().qemu
    source = f"{spoken} {version}, one thread, {emulation.core} emulated by qemu-user {qemu.version}"
    return Measurement(
        target=profile.name,
        artifact_sha256=sha256,
        numbers=(*_numbers(counts, source, engine.MEMORY_SOURCE), latency),
    )


def _engine(profile: Profile) -> tuple[ModuleType, str, str]:
    name = profile.runtime.name
    if name not in _ENGINES:
        raise ConfigError(
            f"{profile.name}: runtime.name",
            f"{name} does not run on an emulated ARM core",
            allowed=f"allowed are {', '.join(_ENGINES)}",
            remedy="Correct the runtime or drop [emulation].",
        )
    engine, installed, spoken = _ENGINES[name]
    if profile.runtime.version != installed:
        raise ConfigError(
            f"{profile.name}: runtime.version",
            f"{profile.runtime.version} is not the version that is measured",
            allowed=f"{name} {installed} is",
            remedy=f'Write version = "{installed}".',
        )
    return engine, installed, spoken


def _numbers(counts: Counts, source: str, memory_source: str) -> tuple[Number, ...]:
    warm = f"{source}; third inference on the same row"
    exact = {
        "instructions": (counts.warm.instructions, warm),
        "instructions_cold": (counts.cold.instructions, f"{source}; first inference of the process"),
        "l1d_misses": (counts.warm.l1d_misses, f"{warm}; LRU, 64-byte lines, no prefetcher"),
        "l2_misses": (counts.warm.l2_misses, f"{warm}; LRU, 64-byte lines, no prefetcher"),
        "peak_memory_bytes": (counts.peak_memory_bytes, f"{source}; {memory_source}"),
    }
    return tuple(
        Number(name=name, value=value, provenance="emulated", source=told, exact=True)
        for name, (value, told) in exact.items()
    )
