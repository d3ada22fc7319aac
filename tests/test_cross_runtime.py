"""LiteRT in milliseconds: the error of fits to ncnn widens every interval, and small models get no point."""

import math
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.calibrate import cross_runtime
from edgepack.calibrate.counts import read_counts as read_ncnn
from edgepack.errors import ConfigError, ToolError
from edgepack.latency.devices import Device, calibration_folder, device_named
from edgepack.latency.litert import (
    ARMV7_CYCLES,
    CALL_CYCLES,
    MOST_LINES,
    crossing,
    plain_ms,
    predict,
    predict_armv7,
    published,
    read_counts,
)
from edgepack.latency.model import DeviceModel, load_model
from edgepack.latency.model import predict as predict_ncnn
from edgepack.runtimes.qemu import Misses, Region
from edgepack.tools import arm as tools

MODEL = load_model()
COUNTS = read_counts()
PI_4 = device_named("raspberry-pi-4")
_CLASSES = Region.__struct_fields__[1:11]


@cache
def found() -> cross_runtime.CrossRuntime:
    return cross_runtime.errors(MODEL)


def scaled(region: Region, factor: float) -> Region:
    """The same mix of everything, `factor` times as much."""

    def times(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(Misses(int(m.misses * factor), int(m.sequential * factor)) for m in value)
        return int(value * factor)

    return Region(*(times(getattr(region, name)) for name in Region.__struct_fields__))


def predicted(net: str, device: Device = PI_4, *, integer: bool = False) -> tuple[float | None, float, float]:
    counted = COUNTS[net, device.stream]
    latency = predict(MODEL, device, counted.warm, counted.cold, integer=integer)
    return latency.value_ms, latency.low_ms, latency.high_ms


def test_every_published_row_has_its_count() -> None:
    rows = (*published("xnnpack"), *published("evidence"))
    assert len([row for row in rows if row.source == "readme"]) == 12
    assert {(row.net, row.stream) for row in rows} <= set(COUNTS)


@pytest.mark.parametrize(
    ("net", "macs"),
    [
        ("mobilenet_v1", 569e6),
        ("mobilenet_v2", 301e6),
        ("mobilenet_v3_large", 219e6),
        ("mobilenet_v3_small", 57e6),
    ],
)
def test_counts_hold_the_multiplications_of_the_network(net: str, macs: float) -> None:
    for stream in ("a72", "a76"):
        counted = COUNTS[net, stream]
        assert 1.0 < 4 * counted.warm.multiply_float / macs < 1.15
        assert counted.warm.instructions < counted.cold.instructions


def test_the_errors_are_those_of_the_committed_counts() -> None:
    for row, told in zip(published("xnnpack"), found().rows, strict=True):
        region = COUNTS[row.net, row.stream].warm
        predicted_ms = predict_ncnn(MODEL, row.device, region).value_ms
        if predicted_ms is None:  # the Snapdragon 675 has no published row of so small a network
            assert (row.phone, row.net) == ("Pixel 3a", "mobilenet_v3_small")
            continue
        assert told.predicted_ms == pytest.approx(predicted_ms, rel=1e-9)
        assert told.error == pytest.approx(predicted_ms / row.ms - 1)


def test_the_width_covers_every_published_row() -> None:
    assert found().width == pytest.approx(math.exp(crossing(MODEL)))
    assert max(abs(math.log1p(row.error)) for row in found().rows) == pytest.approx(crossing(MODEL))
    for row in published("xnnpack"):
        counted = COUNTS[row.net, row.stream]
        latency = predict(MODEL, row.device, counted.warm, counted.cold, integer=False)
        assert latency.low_ms <= row.ms <= latency.high_ms


def test_intervals_are_those_of_ncnn_widened_by_the_cross_runtime_error() -> None:
    counted = COUNTS["mobilenet_v1", "a72"]
    plain = predict_ncnn(MODEL, PI_4, counted.warm)
    latency = predict(MODEL, PI_4, counted.warm, counted.cold, integer=False)
    assert latency.value_ms == plain.value_ms
    assert latency.low_ms == pytest.approx(plain.low_ms / found().width)
    assert latency.high_ms == pytest.approx(plain.high_ms * found().width)
    assert latency.provenance == "modelled"
    assert f"widened {found().width:.2f} times" in latency.note


def test_int8_gives_a_bracket_and_no_point_however_large() -> None:
    value, low, high = predicted("mobilenet_v1", integer=True)
    float_value, float_low, float_high = predicted("mobilenet_v1")
    assert float_value is not None
    assert value is None
    assert low < float_low < float_high < high


@pytest.mark.parametrize(
    ("net", "device"),
    [
        ("tiny_ad", PI_4),
        ("tiny_kws", PI_4),
        ("mobilenet_v2_0.35_96", PI_4),
        ("recommendation", device_named("snapdragon-855-plus")),
        ("text_classification", device_named("snapdragon-855-plus")),
    ],
)
def test_small_models_give_a_bracket_and_no_point(net: str, device: Device) -> None:
    value, low, high = predicted(net, device)
    counted = COUNTS[net, device.stream]
    assert value is None
    assert 0 < low < plain_ms(MODEL, device, counted.warm)
    assert high > plain_ms(MODEL, device, counted.cold) + CALL_CYCLES / (device.clock_mhz * 1e3)


def test_a_bracket_says_why_and_what_it_is_made_of() -> None:
    counted = COUNTS["tiny_kws", "a72"]
    latency = predict(MODEL, PI_4, counted.warm, counted.cold, integer=True)
    assert latency.note.startswith("outside calibration: int8; ")
    assert latency.how.endswith("no latency of int8 on one thread is published for XNNPACK")
    assert f"{counted.warm.instructions / 1e6:.3g} M instructions" in latency.note
    assert f"{found().width:.2f} for LiteRT" in latency.note
    assert f"{found().width:.2f} the greatest error on published latencies of XNNPACK" in latency.how


def test_a_model_that_mostly_waits_for_memory_gives_no_point() -> None:
    counted = COUNTS["mobilenet_v1", "a72"]
    lines = int(counted.warm.instructions * MOST_LINES * 1.01)
    waiting = msgspec.structs.replace(counted.warm, l2=(Misses(lines, 0),) * len(counted.warm.l2))
    latency = predict(MODEL, PI_4, waiting, waiting, integer=False)
    assert latency.value_ms is None
    assert "lines from memory an instruction" in latency.note


def test_no_calibrated_network_has_more_lines_than_are_allowed() -> None:
    counted = read_ncnn(calibration_folder() / "counts.json")
    assert (
        max(level.misses / one.region.instructions for one in counted for level in one.region.l2) < MOST_LINES
    )


def test_evidence_from_elsewhere_agrees_but_for_a_board_that_its_owner_found_too_slow() -> None:
    assert len(found().checked) == 16
    disagreeing = [one.source for one in found().checked if not one.agrees]
    assert disagreeing == ["issue814"]
    fitted_to = [one for one in found().checked if one.net == "text_classification"]
    assert len(fitted_to) == 2, "the fixed cost of a call comes from these: they prove nothing"


def test_brackets_of_the_smallest_networks_hold_when_only_larger_ones_are_known() -> None:
    smallest = found().smallest
    assert smallest.networks[0] == "blazeface"
    assert smallest.rows > 150
    assert smallest.inside >= 0.95 * smallest.rows


@given(
    factor=st.floats(1e-4, 0.04),
    more=st.lists(st.integers(0, 10**6), min_size=len(_CLASSES), max_size=len(_CLASSES)),
    lines=st.integers(0, 10**4),
)
@settings(max_examples=50, deadline=None)
def test_more_of_anything_never_lowers_a_bracket(factor: float, more: list[int], lines: int) -> None:
    fewer = scaled(COUNTS["mobilenet_v1", "a72"].warm, factor)
    classes = {name: getattr(fewer, name) + extra for name, extra in zip(_CLASSES, more, strict=True)}
    greater = msgspec.structs.replace(
        fewer,
        instructions=fewer.instructions + sum(more),
        l1d=tuple(Misses(one.misses + lines, one.sequential) for one in fewer.l1d),
        l2=tuple(Misses(one.misses + lines, one.sequential) for one in fewer.l2),
        **classes,
    )
    small, large = (predict(MODEL, PI_4, region, region, integer=True) for region in (fewer, greater))
    assert small.low_ms <= large.low_ms
    assert small.high_ms <= large.high_ms


def test_32_bit_cores_give_a_bracket_from_the_rows_that_there_are() -> None:
    least, greatest = cross_runtime.armv7_cycles()
    assert ARMV7_CYCLES[0] <= least < ARMV7_CYCLES[0] + 0.1
    assert ARMV7_CYCLES[1] - 0.1 < greatest <= ARMV7_CYCLES[1]
    counted = COUNTS["mobilenet_v2", "armv7"]
    latency = predict_armv7(device_named("banana-pi-m2-zero"), counted.warm, counted.cold)
    assert latency.value_ms is None
    assert latency.low_ms == pytest.approx(counted.warm.instructions * ARMV7_CYCLES[0] / 1.2e6)
    assert "outside calibration: 32-bit code" in latency.note


def test_a_device_that_no_fit_knows_is_refused() -> None:
    counted = COUNTS["tiny_ad", "a72"]
    with pytest.raises(ConfigError, match="no published latency"):
        predict(MODEL, device_named("imx7-dual"), counted.warm, counted.cold, integer=False)
    stranger = DeviceModel(
        source="test",
        features=MODEL.features,
        runtime="ncnn",
        coverage=0.9,
        devices={"raspberry-pi-4": MODEL.devices["raspberry-pi-4"]},
    )
    with pytest.raises(ConfigError, match="knows no device whose latency in XNNPACK was published"):
        crossing(stranger)


def test_the_report_prints_every_row() -> None:
    crossed, checked = cross_runtime.tables(found())
    assert len(crossed) == 1 + 16
    assert len(checked) == 1 + 16
    assert f"worst {found().worst:.1%}" in cross_runtime.told(found())


def test_a_network_counted_again_gives_the_committed_counts() -> None:
    try:
        tools.locate()
    except ToolError as error:
        pytest.skip(str(error))
    from edgepack.calibrate import litert_nets

    again, committed = litert_nets.count("tiny_ad", "a72"), COUNTS["tiny_ad", "a72"]
    for region, before in ((again.warm, committed.warm), (again.cold, committed.cold)):
        for name in Region.__struct_fields__[:11]:
            assert getattr(region, name) == getattr(before, name)
        # Where data lie, and with it which lines a set drops, changes with every version of the driver.
        for found, kept in zip((*region.l1d, *region.l2), (*before.l1d, *before.l2), strict=True):
            assert found.misses == pytest.approx(kept.misses, rel=0.02, abs=8)
