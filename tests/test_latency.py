"""Milliseconds: a device is a target, an interval meets a limit, and no latency is a bare number."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack import checking, ship
from edgepack.budget import judge
from edgepack.bundle import archive, card
from edgepack.errors import ConfigError
from edgepack.latency.as_target import as_target, named_profiles
from edgepack.latency.devices import load_devices
from edgepack.measure import arm, modelled, samples
from edgepack.profiles import Budget, load_profiles
from edgepack.report import html, junit, markdown, text, to_json, units
from edgepack.report.tables import render_measurement
from edgepack.results import BuildResult, Measurement, Number, Verdict
from edgepack.runtimes import arm as engine
from edgepack.runtimes.qemu import check_core
from edgepack.store import sha256_of
from tests.sample_result import bracket, sample_result
from tests.test_arm import FLOAT32, INT8, emulated, histories
from tests.test_bundle import manifest, write
from tests.test_report import Page

PROFILES = load_profiles()
DEVICES = load_devices()
AARCH64 = [device for device in DEVICES.values() if device.isa == "aarch64"]


# A device is a target


def test_every_device_is_a_target_whose_core_can_execute_what_it_promises() -> None:
    for device in DEVICES.values():
        profile = as_target(device, PROFILES)
        assert profile.devices == (device.name,)
        assert profile.emulation is not None
        check_core(profile.emulation, "armhf" if device.isa == "armv7" else "arm64")


def test_a_core_that_another_stands_in_for_is_named() -> None:
    x3, a53 = (as_target(DEVICES[name], PROFILES) for name in ("snapdragon-8-gen-2", "snapdragon-410"))
    assert x3.description.endswith("Cortex-X3, 3.2 GHz; Cortex-A76 stands in for it")
    assert a53.description.endswith("Cortex-A53, 1.2 GHz")


def test_devices_are_named_in_full_and_no_glob_takes_them() -> None:
    assert [p.name for p in named_profiles(("raspberry-pi-5", "android-arm64-*"))] == [
        "android-arm64-high",
        "android-arm64-low",
        "android-arm64-mid",
        "raspberry-pi-5",
    ]
    assert {p.name for p in named_profiles(("*",))} == set(PROFILES)
    assert named_profiles(("raspberry-pi-4",)) == [PROFILES["raspberry-pi-4"]]  # a profile comes first


def test_an_unknown_device_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'raspberry-pi-5'"):
        named_profiles(("raspbery-pi-5",))


def test_every_tier_names_devices_that_are_known() -> None:
    for profile in PROFILES.values():
        assert set(profile.devices) <= set(DEVICES)
        assert bool(profile.devices) == (profile.browser is None)


# An interval against a limit


def verdict_of(low: float, high: float, allowed: float) -> Verdict:
    measurement = Measurement(target="t", artifact_sha256="0", numbers=(bracket(low, high),))
    budget = Budget(latency_ms=allowed)
    (verdict,) = judge(budget, model_bytes=1, download_bytes=1, measurement=measurement, quality=None)
    return verdict


@given(st.floats(0.01, 100), st.floats(0, 100), st.floats(0.01, 200))
def test_an_interval_passes_by_its_upper_end_fails_by_its_lower_and_is_undecided_between(
    low: float, width: float, allowed: float
) -> None:
    high = low + width
    found = verdict_of(low, high, allowed)
    assert (found.status == "within") == (high <= allowed)
    assert (found.status == "over") == (low > allowed)
    assert found.status in ("within", "over", "undecided")
    assert (found.low, found.high, found.provenance) == (low, high, "modelled")


def test_a_modelled_verdict_decides_the_choice_and_a_wall_clock_one_does_not() -> None:
    assert not ship.wall_clock(verdict_of(1.0, 2.0, 1.5))
    assert ship.wall_clock(msgspec.structs.replace(verdict_of(1.0, 2.0, 1.5), provenance="measured"))


# Samples


def test_the_median_of_few_samples_is_bounded_by_their_range_and_says_what_that_covers() -> None:
    five = samples.quantile([3.0, 1.0, 2.0, 5.0, 4.0], 50)
    assert five[:3] == (3.0, 1.0, 5.0)
    assert five.error == "94 % interval of the median of 5 samples on one machine"
    assert samples.quantile([7.0], 50) == (7.0, 7.0, 7.0, "0 % interval of the median of one sample")


def test_a_percentile_is_the_nearest_rank() -> None:
    assert samples.quantile([4.0, 1.0, 3.0, 2.0], 95).value == 4.0
    assert samples.quantile(list(map(float, range(1, 101))), 95).value == 95.0


@pytest.mark.parametrize("per_cent", [50, 95])
def test_the_interval_of_a_quantile_covers_it_as_often_as_it_says(per_cent: int) -> None:
    generator = np.random.default_rng(3)
    truth = float(np.quantile(np.random.default_rng(4).exponential(size=200_000), per_cent / 100))
    hits = []
    for _ in range(2_000):
        found = samples.quantile(list(generator.exponential(size=31)), per_cent)
        hits.append(found.low <= truth <= found.high)
    said = int(found.error.split(" ")[0]) / 100
    assert np.mean(hits) == pytest.approx(said, abs=0.025)


# No latency is a bare number


def latencies(result: BuildResult) -> list[Number | Verdict]:
    candidates = [candidate for target in result.targets for candidate in target.candidates]
    numbers = [n for c in candidates for n in c.measurement.numbers if "latency" in n.name]
    return [*numbers, *(v for c in candidates for v in c.verdicts if v.limit == "latency_ms")]


def bare_times(rendered: str, known: list[Number | Verdict]) -> list[str]:
    """Return the times in `rendered` that do not stand with interval, provenance and error."""
    for one in known:
        for told in (units.with_error(one), f"{units.number(one)} {one.error}"):
            rendered = rendered.replace(told, "")
    return re.findall(r"[\d.,]+ ms", re.sub(r"at most [\d.,]+ ms", "", rendered))  # a limit is no latency


def one_line(rendered: str) -> str:
    return " ".join(rendered.split())


def plain(result: BuildResult) -> BuildResult:
    """Return `result` without load times, which are other times than latencies."""
    targets = []
    for target in result.targets:
        candidates = tuple(
            msgspec.structs.replace(
                one,
                measurement=msgspec.structs.replace(
                    one.measurement,
                    numbers=tuple(n for n in one.measurement.numbers if n.name != "load_ms"),
                ),
                verdicts=tuple(v for v in one.verdicts if v.limit != "load_ms"),
            )
            for one in target.candidates
        )
        targets.append(msgspec.structs.replace(target, candidates=candidates))
    return msgspec.structs.replace(result, targets=tuple(targets))


RENDERINGS = {
    "terminal": lambda result: text.render(result, width=4_000),
    "markdown": lambda result: markdown.render(result).replace("\\", ""),
    "html": lambda result: Page(html.render(result)).text,
    "junit": junit.render,
}


@pytest.mark.parametrize("name", RENDERINGS)
def test_a_report_shows_no_latency_without_interval_provenance_and_error(name: str) -> None:
    result = plain(sample_result())
    rendered = one_line(RENDERINGS[name](result))
    assert " ms" in rendered
    assert bare_times(rendered, latencies(result)) == []


def test_the_check_of_bare_numbers_finds_one() -> None:
    result = plain(sample_result())
    assert bare_times("it takes 3.76 ms emulated", latencies(result)) == ["3.76 ms"]


def structs_with_latency(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in structs_with_latency(item)]
    if not isinstance(value, dict):
        return []
    name = str(value.get("name") or value.get("limit") or "")
    mine = [value] if "latency" in name and "provenance" in value else []
    return mine + [found for item in value.values() for found in structs_with_latency(item)]


def assert_complete(found: list[dict[str, Any]]) -> None:
    assert found
    for one in found:
        assert one["low"] <= one["high"]
        assert one["error"]
        assert one["provenance"] in ("measured", "emulated", "modelled")


def test_json_and_bundle_hold_no_latency_without_interval_provenance_and_error(tmp_path: Path) -> None:
    assert_complete(structs_with_latency(json.loads(to_json(sample_result()))))
    modelled = bracket(0.4, 2.9)
    verdicts = (verdict_of(0.4, 2.9, 25.0),)
    write(tmp_path / "a.edgepack", figures=(*manifest().figures, modelled), verdicts=verdicts)
    bundle = archive.read(tmp_path / "a.edgepack")
    assert_complete(structs_with_latency(msgspec.to_builtins(bundle.manifest)))
    for rendered in (
        checking.render_bundle(tmp_path / "a.edgepack", as_json=False),
        card.render(bundle.manifest, "a log", "CC0"),
        render_measurement(Measurement(target="t", artifact_sha256="0", numbers=(modelled,)), False),
    ):
        (line,) = [line for line in rendered.splitlines() if "latency_p50_ms" in line]
        assert "0.4 to 2.9" in line
        assert "modelled" in line
        assert modelled.error in line


# Measured for real


@emulated
@pytest.mark.parametrize("target", ["android-arm64-low", "android-arm64-high", "raspberry-pi-4"])
def test_a_recommender_on_an_arm_target_gets_a_bracket_and_no_point(target: str) -> None:
    found = arm.measure(INT8, sha256_of(INT8), PROFILES[target], histories(1)).get("latency_p50_ms")
    assert found is not None
    assert found.value is None
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.high
    assert found.error.startswith("outside calibration: ")
    assert found.exact


@emulated
def test_counts_are_equal_in_two_runs_on_every_core_that_a_device_is_emulated_as() -> None:
    profiles = [as_target(device, PROFILES) for device in AARCH64]
    cores = {p.emulation.part: p.emulation for p in profiles if p.emulation}
    assert len(cores) >= 6
    for core in cores.values():
        first, second = (engine.count(FLOAT32, histories(1), core, deadline_s=60) for _ in range(2))
        assert first.warm == second.warm
        assert first.cold == second.cold
        assert first.peak_memory_bytes == second.peak_memory_bytes


def test_a_target_without_a_device_has_no_milliseconds_and_says_how_to_get_some() -> None:
    found = modelled.latency(None, [], deadline_s=1)  # type: ignore[arg-type]
    assert (found.value, found.low) == (None, None)
    assert "name one as `devices` in its profile" in found.source
