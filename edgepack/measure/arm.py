"""What an inference costs on an emulated ARM core: exact counts, and milliseconds modelled from them."""

import statistics
from pathlib import Path
from types import ModuleType

from edgepack.errors import ConfigError
from edgepack.latency import litert
from edgepack.latency.devices import Device, device_named
from edgepack.latency.features import HIERARCHIES
from edgepack.latency.model import DeviceModel, Latency, load_model
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
_NO_DEVICE = "no calibrated device stands behind this target: name one as `devices` in its profile"


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
    counts = engine.count(artifact, inputs, emulation, hierarchies=HIERARCHIES, deadline_s=deadline_s)
    qemu = tools.locate().qemu
    source = f"{spoken} {version}, one thread, {emulation.core} emulated by qemu-user {qemu.version}"
    return Measurement(
        target=profile.name,
        artifact_sha256=sha256,
        numbers=(*_numbers(counts, source, engine.MEMORY_SOURCE), _latency(devices, counts)),
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


def _latency(devices: list[Device], counts: Counts) -> Number:
    if not devices:
        return Number(
            name="latency_p50_ms", value=None, provenance="modelled", source=_NO_DEVICE, exact=False
        )
    model = load_model()
    found = [_predicted(model, device, counts) for device in devices]
    values = [one.value_ms for one in found if one.value_ms is not None]
    # The note of the widest one holds for all that the interval spans.
    widest = max(found, key=lambda one: one.high_ms / one.low_ms)
    return Number(
        name="latency_p50_ms",
        value=_rounded(statistics.median(values)) if len(values) == len(found) else None,
        provenance="modelled",
        source=f"device model of {', '.join(one.device for one in found)}, from these counts",
        exact=True,
        low=_rounded(min(one.low_ms for one in found)),
        high=_rounded(max(one.high_ms for one in found)),
        error=widest.note,
    )


def _predicted(model: DeviceModel, device: Device, counts: Counts) -> Latency:
    if device.isa == "armv7":
        return litert.predict_armv7(device, counts.warm, counts.cold)
    warm, cold = (region.behind_the_first() for region in (counts.warm, counts.cold))
    # int8 kernels multiply integers; float and dynamic-range ones, and their glue, mostly floats.
    integer = warm.multiply_int > warm.multiply_float
    return litert.predict(model, device, warm, cold, integer=integer)


def _rounded(value_ms: float) -> float:
    # Four digits are more than the model knows, and few enough to be equal on every host.
    return float(f"{value_ms:.4g}")
