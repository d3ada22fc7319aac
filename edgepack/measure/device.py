"""What an inference costs on a real phone over adb: milliseconds with their intervals, memory, scores.

The thread is not pinned: an app's is not either, and where the scheduler puts it is part of what a user
waits for. Which kind of core ran is said with every figure instead.
"""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgepack.measure.samples import CONFIDENCE, quantile
from edgepack.results import Measurement, Number
from edgepack.runtimes import adb, host
from edgepack.runtimes.adb import Facts, Timing
from edgepack.runtimes.qemu import Inputs
from edgepack.tools import Tell
from edgepack.tools.arm import LITERT_VERSION

DEADLINE_S = 300.0
_PILOT_RUNS, _TIMED_S, _FEWEST, _MOST = 10, 4.0, 20, 4000
_COLD_STARTS = 7
_NS_IN_MS = 1e6
_NAMES = {
    "0x41/0xd03": "Cortex-A53",
    "0x41/0xd04": "Cortex-A35",
    "0x41/0xd05": "Cortex-A55",
    "0x41/0xd07": "Cortex-A57",
    "0x41/0xd08": "Cortex-A72",
    "0x41/0xd09": "Cortex-A73",
    "0x41/0xd0a": "Cortex-A75",
    "0x41/0xd0b": "Cortex-A76",
    "0x41/0xd0d": "Cortex-A77",
    "0x41/0xd41": "Cortex-A78",
    "0x41/0xd44": "Cortex-X1",
    "0x41/0xd46": "Cortex-A510",
    "0x41/0xd47": "Cortex-A710",
    "0x41/0xd48": "Cortex-X2",
    "0x41/0xd4d": "Cortex-A715",
    "0x41/0xd4e": "Cortex-X3",
    "0x41/0xd80": "Cortex-A520",
    "0x41/0xd81": "Cortex-A720",
    "0x41/0xd82": "Cortex-X4",
}
"""The cores of Arm's numbers, as Linux' arch/arm64/include/asm/cputype.h has them; others show as numbers."""


def measure(
    artifact: Path, sha256: str, serial: str, inputs: Inputs, tell: Tell, *, deadline_s: float = DEADLINE_S
) -> Measurement:
    """Measure one TFLite file on the device `serial` ("": the only one) with the rows int32 [N, L] each.

    Gives `latency_p50_ms`, `latency_p95_ms` and `cpu_p50_ms` of warm inferences, `latency_first_ms` over
    fresh processes, `peak_memory_bytes`, and `max_score_difference` from the host's LiteRT. Each process gets
    `deadline_s`. Raises what the functions of `edgepack.runtimes.adb` and `edgepack.runtimes.host.run` raise.
    """
    rows = len(next(iter(inputs.values())))
    phone = adb.connect(serial)
    before = adb.facts(phone)
    adb.must_be_able(phone, before)
    with adb.workplace(phone) as folder:
        tell(f"copying {artifact.name} and the runtime to {phone.name}", 0, 0)
        adb.push(phone, folder, artifact, inputs)
        tell(f"measuring {artifact.name} on {phone.name}", 0, 0)
        # Faults of the watched pages are over before the pilot's last runs.
        pilot = adb.drive(
            phone, folder, artifact, inputs, runs=_PILOT_RUNS, deadline_s=deadline_s, watches_pages=True
        )
        runs = _runs(pilot)
        warm = adb.drive(phone, folder, artifact, inputs, runs=runs, deadline_s=deadline_s)
        scores = adb.scores(phone, folder, rows)
        cold = [
            adb.drive(phone, folder, artifact, inputs, runs=0, deadline_s=deadline_s).wall_ns[0]
            for _ in range(_COLD_STARTS - 1)
        ]
    after = adb.facts(phone)
    source = _source(before, after, warm)
    expected = host.run("litert", artifact, inputs, deadline_s=deadline_s)
    difference = float(np.abs(scores - expected).max())
    numbers = (
        *_warm_numbers(warm, rows, source),
        _latency("latency_first_ms", [*cold, warm.wall_ns[0]], 50, source, "first inferences of a process"),
        _number("peak_memory_bytes", pilot.peak_memory_bytes, f"{source}; {_MEMORY}"),
        _number("max_score_difference", difference, f"{source}; {_DIFFERENCE}"),
    )
    return Measurement(target=phone.name, artifact_sha256=sha256, numbers=numbers)


_MEMORY = (
    "high-water mark of the driver's heap and anonymous mappings, plus the pages of the mapped model that "
    "were read; the runtime's own code and static data are not in it"
)
_DIFFERENCE = f"largest difference of a score from LiteRT {LITERT_VERSION}'s on this computer"


def _runs(pilot: Timing) -> int:
    usual_ns = statistics.median(pilot.wall_ns[-_PILOT_RUNS // 2 :])
    return min(_MOST, max(_FEWEST, int(_TIMED_S * 1e9 / max(usual_ns, 1))))


def _source(before: Facts, after: Facts, timing: Timing) -> str:
    """Describe device, its state and the cores that ran, in one line; what it does not say is left out."""
    device = ", ".join(word for word in (before.soc, before.android and f"Android {before.android}") if word)
    heat = f"thermal status {before.thermal_status}, {after.thermal_status} afterwards"
    words = [
        f"LiteRT {LITERT_VERSION}, one thread, {before.model or 'a device without a name'}"
        + (f" ({device})" if device else ""),
        f"not pinned, ran on {_cores(before, timing)}",
        heat if before.thermal_status else "",
        f"battery {before.battery_percent} %" if before.battery_percent else "",
    ]
    return "; ".join(word for word in words if word)


def _cores(known: Facts, timing: Timing) -> str:
    """Tell the kinds of core of all invocations, the most frequent first, with each one's governor."""
    counted: Counter[str] = Counter()
    for index in timing.processor:
        core = known.processors.get(index)
        name = _NAMES.get(core.part, core.part) if core else ""
        limits = f" ({core.governor}, up to {core.max_khz / 1e3:.0f} MHz)" if core and core.governor else ""
        counted[(name or f"processor {index}") + limits] += 1
    total = len(timing.processor)
    return ", ".join(f"{name} {count / total:.0%}" for name, count in counted.most_common())


def _warm_numbers(timing: Timing, rows: int, source: str) -> list[Number]:
    # The first fifth lets caches, branch predictors and the governor settle.
    skipped = rows + (len(timing.wall_ns) - rows) // 5
    wall, cpu = timing.wall_ns[skipped:], timing.cpu_ns[skipped:]
    warm = f"inferences after {skipped} of warm-up"
    return [
        _latency("latency_p50_ms", wall, 50, source, warm),
        _latency("latency_p95_ms", wall, 95, source, warm),
        _latency("cpu_p50_ms", cpu, 50, f"{source}; the thread's own CPU time", warm),
    ]


def _latency(name: str, samples_ns: Sequence[int], per_cent: int, source: str, of: str) -> Number:
    """Return a quantile with its interval; without a point where the samples cannot bound it from above."""
    found = quantile([ns / _NS_IN_MS for ns in samples_ns], per_cent, "this one device")
    is_bounded = (per_cent / 100) ** len(samples_ns) <= (1 - CONFIDENCE) / 2
    return Number(
        name=name,
        value=round(found.value, 6) if is_bounded else None,
        provenance="measured",
        source=f"{source}; {len(samples_ns)} {of}",
        exact=False,
        low=round(found.low, 6),
        high=round(found.high, 6),
        error=f"{found.error}, taken as independent; other devices of its kind and other days are not in it",
    )


def _number(name: str, value: float, source: str) -> Number:
    return Number(name=name, value=value, provenance="measured", source=source, exact=False)
