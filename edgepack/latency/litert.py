"""LiteRT's milliseconds: what ncnn's latencies taught of a device, carried over to XNNPACK.

A fit knows how long ncnn's networks take. How far it errs on LiteRT is known from published latencies of
XNNPACK on phones of the same chips, or their nearest kin; that error widens every interval here. Outside of
what was calibrated there is a bracket and no estimate: from the third inference at its fastest to the first
of a process, with cold caches, at its slowest, with a fixed cost of a call.
"""

import csv
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from edgepack.errors import ConfigError
from edgepack.latency.devices import Device, calibration_folder, load_devices
from edgepack.latency.features import FEATURES, features
from edgepack.latency.model import Calibrated, DeviceModel, Latency, known_of
from edgepack.latency.model import predict as predict_in
from edgepack.runtimes.qemu import Region
from edgepack.store import write_atomic

MOST_LINES = 0.05
"""Lines from memory an instruction: no network behind the fits has as many."""

CALL_CYCLES = 150_000
"""What a call may cost beside its own instructions: system calls, a timer tick, a switch to another thread
and back. Derived from TensorFlow Lite's text classifier, 14,146 instructions, whose published 0.05 ms on
phones of 2.8 GHz are 140,000 cycles: as though all of them were of this kind."""

ARMV7_CYCLES = (1.3, 11.4)
"""Least and greatest cycles an instruction of 32-bit code. The least is of the published rows of in-order
AArch64 cores. The greatest is of 32-bit cores, by the instructions of the same network's AArch64 code, which
has more registers and needs no more of them (`calibrate.cross_runtime.armv7_cycles` computes both)."""

ARMV7_LINE_CYCLES = 200
"""Cycles for a line from memory, above what any fit of an in-order core found."""


class LitertCount(msgspec.Struct, frozen=True, kw_only=True):
    """One network counted in LiteRT: the third (`warm`) and the first (`cold`) inference of a process."""

    net: str
    stream: str
    warm: Region
    cold: Region


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One published latency; the comments of xnnpack.csv and evidence.csv say what the columns mean."""

    phone: str
    kin: str
    clock_mhz: int
    stream: str
    net: str
    ms: float
    source: str
    threads: int = 1

    @property
    def device(self) -> Device:
        """Return the kin, at the clock of the phone."""
        return msgspec.structs.replace(_devices()[self.kin], clock_mhz=self.clock_mhz)


_devices = cache(load_devices)


def counts_path() -> Path:
    """Return the file of LiteRT's counts."""
    return calibration_folder() / "litert-counts.json"


class _Counts(msgspec.Struct, frozen=True):
    source: str
    counts: list[LitertCount]


@cache
def read_counts() -> dict[tuple[str, str], LitertCount]:
    """Return what is counted by network and kernel stream; nothing when there is no file."""
    if not counts_path().is_file():
        return {}
    counted = msgspec.json.decode(counts_path().read_bytes(), type=_Counts).counts
    return {(one.net, one.stream): one for one in counted}


def write_counts(counted: dict[tuple[str, str], LitertCount], source: str) -> None:
    """Keep counts where `read_counts` finds them."""
    rows: list[Any] = msgspec.to_builtins([counted[key] for key in sorted(counted)])
    lines = ",\n".join(json.dumps(row) for row in rows)
    text = f'{{"source": {json.dumps(source)}, "counts": [\n{lines}\n]}}\n'
    write_atomic(counts_path(), text.encode())
    read_counts.cache_clear()


def table(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of the calibration folder, named by its stem; lines with # are none."""
    with (calibration_folder() / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


@cache
def published(name: str) -> tuple[Published, ...]:
    """Return the rows of a file of published latencies: "xnnpack" or "evidence"."""
    return tuple(msgspec.convert(table(name), list[Published], strict=False))


def plain_ms(model: DeviceModel, device: Device, region: Region) -> float:
    """Return what the device's fit makes of a count, in milliseconds, wherever it was made."""
    weights = known_of(model, device).weights
    return float(features(region, device) @ weights) / (device.clock_mhz * 1e3)


def crossing(model: DeviceModel) -> float:
    """Return how far an interval is widened for LiteRT, as a logarithm: the greatest error of the fits to
    ncnn on the published rows of XNNPACK.

    Rows of one phone err alike, so that it is phones which count: of four phones and one to come, each is as
    likely to have the greatest error, and the one to come stays within that of the others with a
    probability of four fifths. The device's own width comes on top. Raises ConfigError when `model` has none
    of the devices.
    """
    known = [row for row in published("xnnpack") if row.kin in model.devices]
    if not known:
        raise ConfigError(
            "the device model",
            "knows no device whose latency in XNNPACK was published",
            allowed=f"those are {', '.join(sorted({row.kin for row in published('xnnpack')}))}",
            remedy="Run `edgepack calibrate`, which fits anew.",
        )
    counts = read_counts()
    regions = [counts[row.net, row.stream].warm for row in known]
    errors = (
        math.log(row.ms / plain_ms(model, row.device, region))
        for row, region in zip(known, regions, strict=True)
    )
    return max(map(abs, errors))


def predict(model: DeviceModel, device: Device, warm: Region, cold: Region, *, integer: bool) -> Latency:
    """Return the latency of an inference in LiteRT with XNNPACK: an estimate, or a bracket and the reason.

    `warm` and `cold` are the third and the first inference of a process, counted with HIERARCHIES on the
    device's kernel stream; `integer` says that the model computes in int8 (quantized or dynamic range), for
    which no latency of a single thread was published. Between two brackets of a device, more instructions or
    misses never give a lower end. A device with LiteRT runs of its own is predicted from these alone. Raises
    ConfigError for a device of whose kind no published row is known.
    """
    known = known_of(model, device)
    if known.runtime == RUNTIME:
        return predict_in(model, device, warm, RUNTIME)
    inside = predict_in(model, device, warm)
    crossed = crossing(model)
    if why := _outside(inside, device, warm, integer=integer):
        ends_ms = plain_ms(model, device, warm), plain_ms(model, device, cold)
        found = _bracket(known, device, ends_ms, crossed, why)
        return msgspec.structs.replace(found, how=f"{found.how}; {_NO_INT8}") if integer else found
    width = math.exp(crossed)
    return msgspec.structs.replace(
        inside,
        low_ms=inside.low_ms / width,
        high_ms=inside.high_ms * width,
        note=f"{inside.note}; widened {width:.2f} times for LiteRT",
        how=f"{width:.2f} is {_EVIDENCE}",
    )


RUNTIME = "litert"
_NO_INT8 = "no latency of int8 on one thread is published for XNNPACK"
_EVIDENCE = "the greatest error on published latencies of XNNPACK"


def _outside(inside: Latency, device: Device, warm: Region, *, integer: bool) -> str:
    found = dict(zip(FEATURES, features(warm, device), strict=True))
    lines = (found["llc_sequential"] + found["llc_random"]) / max(1, warm.instructions)
    reasons = []
    if integer:
        reasons.append("int8")
    if lines > MOST_LINES:
        reasons.append(f"{lines:.3f} lines from memory an instruction, calibrated are up to {MOST_LINES}")
    if inside.value_ms is None:
        reasons.append(inside.note.removeprefix("outside calibration: ").split(";")[0])
    return "; ".join(reasons)


def _bracket(
    known: Calibrated, device: Device, ends_ms: tuple[float, float], crossed: float, why: str
) -> Latency:
    """Span from the third inference to the first: `ends_ms` are the plain predictions of both."""
    own, litert = math.exp(known.widest), math.exp(crossed)
    width, call_ms = own * litert, CALL_CYCLES / (device.clock_mhz * 1e3)
    return Latency(
        device=device.name,
        value_ms=None,
        low_ms=ends_ms[0] / width,
        high_ms=max(ends_ms) * width + call_ms,
        provenance="modelled",
        note=f"outside calibration: {why}; a bracket, {own:.2f} times for the device and {litert:.2f} for "
        "LiteRT",
        how=f"from the third inference / {width:.2f} to the first of a process (cold caches) x {width:.2f} "
        f"+ {call_ms:.2g} ms for the call; {own:.2f} is the device's widest error, {litert:.2f} {_EVIDENCE}",
    )


def predict_armv7(device: Device, warm: Region, cold: Region) -> Latency:
    """Return a bracket for a 32-bit device: derived, not fitted.

    `warm` and `cold` are of `runtimes.armv7.count`; of `device` only the name and the clock count.
    """
    least, greatest = ARMV7_CYCLES
    slowest = max(warm.instructions, cold.instructions) * greatest
    lines = max(warm.l2_misses, cold.l2_misses) * ARMV7_LINE_CYCLES
    khz = device.clock_mhz * 1e3
    return Latency(
        device=device.name,
        value_ms=None,
        low_ms=warm.instructions * least / khz,
        high_ms=(slowest + lines + CALL_CYCLES) / khz,
        provenance="modelled",
        note=f"outside calibration: 32-bit code; a bracket from {least} to {greatest} cycles an instruction",
        how=f"derived, with {ARMV7_LINE_CYCLES} cycles a line from memory and {CALL_CYCLES:,} a call at "
        f"{device.clock_mhz} MHz",
    )
