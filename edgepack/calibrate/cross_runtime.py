"""How far fits to ncnn err on LiteRT, and how its brackets fare against what was published elsewhere."""

import math

import msgspec
import numpy as np

from edgepack.calibrate.counts import Counted, read_counts
from edgepack.calibrate.fit import fit
from edgepack.calibrate.rows import joined, version_of
from edgepack.latency.devices import calibration_folder, load_devices
from edgepack.latency.litert import (
    CALL_CYCLES,
    Published,
    crossing,
    plain_ms,
    predict,
    predict_armv7,
    published,
    table,
)
from edgepack.latency.litert import read_counts as read_litert
from edgepack.latency.model import DeviceModel, Latency


class Crossed(msgspec.Struct, frozen=True, kw_only=True):
    """One published latency of XNNPACK, predicted from LiteRT's count by the fit of `kin`; `error` 0.1: ten
    per cent too slow."""

    phone: str
    kin: str
    net: str
    source: str
    published_ms: float
    predicted_ms: float
    error: float


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One published latency held against LiteRT's interval or bracket for its count.

    It was measured with one to `threads` threads: `agrees` says whether the time that a single one may have
    taken, from `published_ms` to `threads` times that, and the interval have a part in common.
    """

    phone: str
    net: str
    source: str
    instructions: int
    threads: int
    published_ms: float
    low_ms: float
    high_ms: float
    is_bracket: bool
    agrees: bool


class Smallest(msgspec.Struct, frozen=True, kw_only=True):
    """How many of `rows` published latencies lie in a bracket that was made without such small networks."""

    networks: tuple[str, ...]
    rows: int
    inside: int


class CrossRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """Errors are shares of one, without their sign in `mean`, `median` and `worst`; those three are of the
    rows of XNNPACK's own table. `bias` is the mean error, with its sign, by phone; `width` is how many times
    LiteRT's intervals are widened; `smallest` is what `smallest_networks` returns."""

    rows: tuple[Crossed, ...]
    mean: float
    median: float
    worst: float
    bias: dict[str, float]
    width: float
    checked: tuple[Checked, ...]
    agreeing: int
    smallest: Smallest


def errors(model: DeviceModel) -> CrossRuntime:
    """Return the errors of `model` on XNNPACK's published rows, and its brackets beside other evidence.

    Raises ConfigError when `model` knows none of the devices.
    """
    width = math.exp(crossing(model))
    rows = tuple(_crossed(model, row) for row in published("xnnpack") if row.kin in model.devices)
    own = np.abs([row.error for row in rows if row.source == "readme"])
    bias = {
        phone: float(np.mean([row.error for row in rows if row.phone == phone]))
        for phone in dict.fromkeys(row.phone for row in rows)
    }
    checked = tuple(
        _checked(model, row)
        for row in published("evidence")
        if row.kin in model.devices or row.stream == "armv7"
    )
    return CrossRuntime(
        rows=rows,
        mean=float(own.mean()),
        median=float(np.median(own)),
        worst=float(own.max()),
        bias=bias,
        width=width,
        checked=checked,
        agreeing=sum(one.agrees for one in checked),
        smallest=smallest_networks(model),
    )


def uncounted() -> set[tuple[str, str]]:
    """Return the network and kernel stream of each published row whose LiteRT count is missing."""
    asked = {(row.net, row.stream) for row in (*published("xnnpack"), *published("evidence"))}
    return asked - set(read_litert())


def _crossed(model: DeviceModel, row: Published) -> Crossed:
    predicted_ms = plain_ms(model, row.device, read_litert()[row.net, row.stream].warm)
    return Crossed(
        phone=row.phone,
        kin=row.kin,
        net=row.net,
        source=row.source,
        published_ms=row.ms,
        predicted_ms=predicted_ms,
        error=predicted_ms / row.ms - 1,
    )


def _checked(model: DeviceModel, row: Published) -> Checked:
    found, instructions = _interval(model, row)
    return Checked(
        phone=row.phone,
        net=row.net,
        source=row.source,
        instructions=instructions,
        threads=row.threads,
        published_ms=row.ms,
        low_ms=found.low_ms,
        high_ms=found.high_ms,
        is_bracket=found.value_ms is None,
        agrees=found.low_ms <= row.threads * row.ms and row.ms <= found.high_ms,
    )


def _interval(model: DeviceModel, row: Published) -> tuple[Latency, int]:
    counted = read_litert()[row.net, row.stream]
    if row.stream == "armv7":
        found = predict_armv7(row.device, counted.warm, counted.cold)
    else:
        found = predict(model, row.device, counted.warm, counted.cold, integer=False)
    return found, counted.warm.instructions


def smallest_networks(model: DeviceModel) -> Smallest:
    """Bracket ncnn's five smallest networks by weights from all larger ones: does the recipe hold downwards?

    Widths are those of `model`; the first inference was not counted, so the second stands in for it, which
    makes the brackets narrower than LiteRT's.
    """
    rows = joined(read_counts(calibration_folder() / "counts.json"))
    instructions: dict[str, list[int]] = {}
    for row in rows:
        instructions.setdefault(row.net, []).append(row.instructions)
    small = sorted(instructions, key=lambda net: float(np.median(instructions[net])))[:_SMALLEST]
    known = fit([row for row in rows if row.net not in small], pull=_PULL)
    inside = []
    for row in rows:
        if row.net in small and row.device.name in known:
            cycles = float(row.features @ known[row.device.name])
            width = math.exp(model.devices[row.device.name].widest)
            inside.append(cycles / width <= row.cycles <= cycles * width + CALL_CYCLES)
    return Smallest(networks=tuple(small), rows=len(inside), inside=sum(inside))


_SMALLEST = 5
_PULL = 0.3


def armv7_cycles() -> tuple[float, float]:
    """Return the range that `latency.litert.ARMV7_CYCLES` rounds: least of in-order AArch64 rows in cycles an
    instruction, greatest of 32-bit rows in cycles an instruction of the network's AArch64 code."""
    counted = read_counts(calibration_folder() / "counts.json")
    in_order = [
        row.cycles / row.instructions for row in joined(counted) if row.device.kind.startswith("in-order")
    ]
    return min(in_order), max(_of_32_bit(counted))


def _of_32_bit(counted: list[Counted]) -> list[float]:
    instructions = {(one.net, one.version): one.region.instructions for one in counted if one.stream == "a72"}
    devices, found = load_devices(), []
    for line in table("published"):
        device = devices[line["device"]]
        of_net = instructions.get((line["net"], version_of(line["row_date"])))
        if device.isa == "armv7" and of_net is not None:
            found.append(float(line["avg_ms"]) * device.clock_mhz * 1e3 / of_net)
    return found


def tables(found: CrossRuntime) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """Return two tables, headings first: the errors on XNNPACK's rows, and the evidence beside them."""
    rows: list[tuple[str, ...]] = [("phone", "fit of", "network", "published ms", "predicted ms", "error")]
    for row in found.rows:
        predicted = f"{row.predicted_ms:.1f}"
        rows.append((row.phone, row.kin, row.net, f"{row.published_ms:g}", predicted, f"{row.error:+.1%}"))
    checked: list[tuple[str, ...]] = [
        ("phone", "network", "instructions", "threads", "published ms", "interval ms", "", "agrees")
    ]
    for one in found.checked:
        threads = "1" if one.threads == 1 else f"1-{one.threads}"
        interval = f"{one.low_ms:.3g} - {one.high_ms:.3g}"
        kind = "bracket" if one.is_bracket else "interval"
        cells = (one.phone, one.net, f"{one.instructions:,}", threads, f"{one.published_ms:g}", interval)
        checked.append((*cells, kind, "yes" if one.agrees else "no"))
    return rows, checked


def told(found: CrossRuntime) -> str:
    """Return what the two tables come to, in a few lines."""
    apart = ", ".join(f"{one.phone} {one.net} ({one.source})" for one in found.checked if not one.agrees)
    biases = ", ".join(f"{phone} {bias:+.1%}" for phone, bias in found.bias.items())
    return (
        f"XNNPACK's twelve rows by the fits to ncnn: mean {found.mean:.1%}, median {found.median:.1%}, worst "
        f"{found.worst:.1%}; by phone: {biases}.\nLiteRT's intervals are widened {found.width:.2f} times, by "
        f"the greatest of these errors. {found.agreeing} of {len(found.checked)} other\npublished latencies "
        "agree with the interval or bracket of their count (other and older runtimes: an order check)"
        + (f"; not {apart}.\n" if apart else ".\n")
        + f"{found.smallest.inside} of {found.smallest.rows} rows of ncnn's {len(found.smallest.networks)} "
        "smallest networks lie in brackets by weights from all larger ones.\n"
    )
