"""What an artifact costs in a browser: load, latency and heap in headless Chromium; Node beside it."""

from pathlib import Path

import msgspec

from edgepack.measure.samples import Quantile, quantile
from edgepack.profiles import Browser, Profile
from edgepack.results import Measurement, Number, Provenance
from edgepack.runtimes.wasm import ChromiumTiming, Inputs, Timing, runtime_of, time_chromium, time_node

DEADLINE_S = 180.0


def measure(
    artifact: Path, sha256: str, profile: Profile, inputs: Inputs, *, deadline_s: float = DEADLINE_S
) -> Measurement:
    """Time `artifact` on the main thread of headless Chromium; `sha256` is the artifact's.

    What runs in onnxruntime-web is timed in Node as well.

    `inputs` maps each input's name to int32 [N, width]; the runs go round their rows. Chromium is slowed
    down by the profile's `browser.cpu_throttle_rate`. That is a duty cycle, so a latency is the median or
    95th percentile of samples of at least 10 ms of work each, divided by the runs in the sample.

    Raises ConvertError, MeasureError, ToolError or LimitError as the runtimes do.
    """
    rate = (profile.browser or Browser()).cpu_throttle_rate
    chromium = time_chromium(artifact, inputs, cpu_throttle_rate=rate, deadline_s=deadline_s)
    runtime = f"{profile.runtime.name} {profile.runtime.version}"
    numbers = _chromium_numbers(chromium, rate, runtime)
    if runtime_of(artifact) == "onnxruntime-web":
        numbers += _node_numbers(time_node(artifact, inputs, deadline_s=deadline_s), runtime)
    return Measurement(target=profile.name, artifact_sha256=sha256, numbers=tuple(numbers))


def _chromium_numbers(measured: ChromiumTiming, rate: float, runtime: str) -> list[Number]:
    timing = measured.timing
    provenance: Provenance = "measured" if rate == 1 else "emulated"
    source = (
        f"Chromium {measured.chromium_version}, {runtime}, 1 thread, main thread, CPU throttled {rate:g}x"
    )
    sampling = f"{source}; {len(timing.samples_ms)} samples of {timing.batch_runs} runs"
    samples = timing.samples_ms
    return [
        _wall_clock("runtime_load_ms", timing.runtime_load_ms, provenance, source),
        _wall_clock("load_ms", timing.load_ms, provenance, source),
        _latency("latency_first_ms", quantile([timing.first_ms], 50), provenance, source),
        _latency("latency_p50_ms", quantile(samples, 50), provenance, sampling),
        _latency("latency_p95_ms", quantile(samples, 95), provenance, sampling),
        _peak_memory(measured, provenance, source),
        *_benchmarks(timing, provenance),
    ]


def _peak_memory(measured: ChromiumTiming, provenance: Provenance, source: str) -> Number:
    pages = (measured.timing.peak_memory_bytes, measured.repeated_peak_memory_bytes)
    equal = pages[0] == pages[1]
    said = f"WebAssembly heap's high-water mark, {'equal' if equal else 'not equal'} in two fresh pages"
    return Number(
        name="peak_memory_bytes",
        value=max(pages),
        provenance=provenance,
        source=f"{source}; {said}",
        exact=equal,
    )


def _benchmarks(timing: Timing, provenance: Provenance) -> list[Number]:
    loop = "median of 7 rounds of 20 million integer steps in the page"
    plain, throttled = timing.host_benchmark_ms, timing.throttled_benchmark_ms
    numbers = []
    if plain is not None:
        numbers.append(_wall_clock("host_benchmark_ms", plain, "measured", f"{loop}, not throttled"))
    if throttled is not None:
        numbers.append(_wall_clock("throttled_benchmark_ms", throttled, provenance, f"{loop}, throttled"))
    return numbers


def _node_numbers(timing: Timing, runtime: str) -> list[Number]:
    sampling = f"{len(timing.samples_ms)} samples of {timing.batch_runs} runs"
    source = f"Node, {runtime}, 1 thread; {sampling}"
    return [
        _latency("node_latency_p50_ms", quantile(timing.samples_ms, 50), "measured", source),
        _wall_clock("node_cpu_ms", timing.cpu_ms, "measured", f"{source}; CPU time per run"),
    ]


def _wall_clock(name: str, value: float, provenance: Provenance, source: str) -> Number:
    return Number(name=name, value=round(value, 6), provenance=provenance, source=source, exact=False)


def _latency(name: str, found: Quantile, provenance: Provenance, source: str) -> Number:
    plain = _wall_clock(name, found.value, provenance, source)
    low, high = round(found.low, 6), round(found.high, 6)
    return msgspec.structs.replace(plain, low=low, high=high, error=found.error)
