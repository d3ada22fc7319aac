"""Milliseconds of named devices from counts: what the device model makes of an inference."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgepack.latency import litert
from edgepack.latency.devices import Device
from edgepack.latency.features import HIERARCHIES, dtype
from edgepack.latency.model import Latency, load_model
from edgepack.latency.streams import STREAMS
from edgepack.profiles import Emulation
from edgepack.results import Number
from edgepack.runtimes import arm
from edgepack.runtimes.qemu import Counts, Hierarchy, Inputs, Region

NAME = "latency_p50_ms"
_NO_DEVICE = "no calibrated device stands behind this target: name one as `devices` in its profile"


class Counted(NamedTuple):
    """An artifact that was counted on a core, with `played_beside` beside the core's own caches."""

    artifact: Path
    inputs: Inputs
    emulation: Emulation
    counts: Counts


def played_beside(emulation: Emulation, devices: Sequence[Device]) -> tuple[Hierarchy, ...]:
    """Return the caches that `latency` wants played beside the core's own: none where it counts anew."""
    streams = {device.stream for device in devices if device.isa == "aarch64"}
    return HIERARCHIES if any(_has_kernels_of(emulation, stream) for stream in streams) else ()


def _has_kernels_of(emulation: Emulation, stream: str) -> bool:
    core = STREAMS[stream]
    return (core.cpu, core.part) == (emulation.cpu, emulation.part)


def latency(counted: Counted, devices: Sequence[Device], *, deadline_s: float) -> Number:
    """Return the latency on `devices`: the median of their estimates, and an interval that spans theirs.

    There is no value where one of them has none, and no interval without devices. Where the core's kernels
    are not those that the fits know, the artifact is counted anew on theirs, which raises as
    `runtimes.arm.run`.
    """
    if not devices:
        return Number(name=NAME, value=None, provenance="modelled", source=_NO_DEVICE, exact=False)
    model = load_model()
    found = []
    regions: dict[str, tuple[Region, Region]] = {}
    for device in devices:
        if device.isa == "armv7":
            found.append(litert.predict_armv7(device, counted.counts.warm, counted.counts.cold))
            continue
        if device.stream not in regions:
            regions[device.stream] = _ends(counted, device.stream, deadline_s=deadline_s)
        warm, cold = regions[device.stream]
        found.append(litert.predict(model, device, warm, cold, integer=dtype(warm) == "int8"))
    kernels = " and ".join(sorted(STREAMS[stream].core for stream in regions))
    return _number(found, f"counts of {kernels} kernels" if kernels else "these counts")


def _ends(counted: Counted, stream: str, *, deadline_s: float) -> tuple[Region, Region]:
    """Return the third and the first inference with the kernels that the fits know, on HIERARCHIES alone."""
    if _has_kernels_of(counted.emulation, stream):
        ends = counted.counts.warm, counted.counts.cold
    else:
        artifact, inputs, core = counted.artifact, counted.inputs, STREAMS[stream]
        first, *_, third = arm.regions(artifact, inputs, core, hierarchies=HIERARCHIES, deadline_s=deadline_s)
        ends = third, first
    return ends[0].behind_the_first(), ends[1].behind_the_first()


def _number(found: Sequence[Latency], of: str) -> Number:
    values = [one.value_ms for one in found if one.value_ms is not None]
    # What is said of the widest one holds for all that the interval spans.
    widest = max(found, key=lambda one: one.high_ms / one.low_ms)
    source = f"device model of {', '.join(one.device for one in found)}, from {of}"
    return Number(
        name=NAME,
        value=_rounded(statistics.median(values)) if len(values) == len(found) else None,
        provenance="modelled",
        source=f"{source}; {widest.how}" if widest.how else source,
        exact=True,
        low=_rounded(min(one.low_ms for one in found)),
        high=_rounded(max(one.high_ms for one in found)),
        error=widest.note,
    )


def _rounded(value_ms: float) -> float:
    # Four digits are more than the model knows, and few enough to be equal on every host.
    return float(f"{value_ms:.4g}")
