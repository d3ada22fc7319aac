"""The device model: it finds what was put in, keeps small devices near their kin, and knows its limits."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgepack.calibrate import evaluate
from edgepack.calibrate.counts import STREAMS, count_all
from edgepack.calibrate.fit import BOUNDS, fit, fit_new_device
from edgepack.calibrate.rows import Row, version_of, wanted
from edgepack.calibrating import refit
from edgepack.errors import ConfigError, DataError, MeasureError, ToolError
from edgepack.latency.devices import device_named, load_devices
from edgepack.latency.features import FEATURES, HIERARCHIES, features
from edgepack.latency.model import Calibrated, DeviceModel, load_model, predict
from edgepack.runtimes import ncnn
from edgepack.runtimes.qemu import Misses, Region
from edgepack.tools import arm as tools

DEVICES = load_devices()
KIN = [device for device in DEVICES.values() if device.kind == "ooo-a57" and device.rows][:4]
TRUTH = np.array([0.5, 0.7, 9.0, 0.6, 0.4, 0.8, 0.5, 0.9, 0.5, 8.0, 15.0, 90.0])


def made_rows(noise: float = 0.0, nets: int = 24, seed: int = 3) -> list[Row]:
    """Rows of KIN whose cycles are TRUTH x features x a factor of the device, with relative noise."""
    generator = np.random.default_rng(seed)
    per_net = np.exp(generator.normal(0, 1.2, (nets, len(FEATURES)))) * (1e8 / TRUTH)
    rows = []
    for index, device in enumerate(KIN):
        for net, found in enumerate(per_net):
            cycles = (1 + 0.2 * index) * TRUTH @ found * np.exp(generator.normal(0, noise))
            rows.append(Row(device, f"net{net}", cycles / (device.clock_mhz * 1e3), int(found.sum()), found))
    return rows


def region(instructions: int) -> Region:
    tenth = instructions // 10
    lacked = Misses(instructions // 100, 0)
    return Region(instructions, *([tenth] * 10), (lacked,), (lacked,) * 2, (lacked,) * 12)


def test_a_fit_finds_the_weights_that_made_the_rows() -> None:
    found = fit(made_rows(), pull=0.01)
    for index, device in enumerate(KIN):
        np.testing.assert_allclose(found.devices[device.name], TRUTH * (1 + 0.2 * index), rtol=1e-3)


def test_weights_stay_within_what_a_core_can_do() -> None:
    found = fit(made_rows(noise=0.6, nets=9), pull=0.0)
    least, greatest = np.array([BOUNDS[name] for name in FEATURES]).T
    for weights in found.devices.values():
        assert (weights >= least * 0.999).all()
        assert (weights <= greatest * 1.001).all()


def test_a_device_with_two_rows_takes_after_its_kind() -> None:
    rows = made_rows()
    poor = KIN[0].name
    few = [row for row in rows if row.device.name != poor or row.net in ("net0", "net1")]
    np.testing.assert_allclose(fit(few, pull=0.3).devices[poor], TRUTH, rtol=0.02)


def test_intervals_cover_what_was_held_out() -> None:
    splits = list(evaluate.outer_hold_out(made_rows(noise=0.1, nets=30), splits=6, seed=1))
    brief = evaluate.in_brief(one for split in splits for one in split)
    assert brief.rows == 6 * 10 * len(KIN)
    assert brief.covered is not None
    assert 0.8 < brief.covered <= 1.0
    assert brief.mean < 0.2


def test_held_out_networks_are_in_no_training_row() -> None:
    rows = made_rows(nets=12)
    for split in evaluate.outer_hold_out(rows, splits=3, seed=1):
        assert len({one.row.net for one in split}) == 4


def test_a_new_device_is_known_better_with_rows_of_its_own() -> None:
    rows = made_rows(noise=0.02)
    last = KIN[-1].name
    kin = [row for row in rows if row.device.name != last]
    own = [row for row in rows if row.device.name == last]
    truth = TRUTH * 1.6
    unseen = own[20].features

    def error(known: int) -> float:
        weights = fit_new_device(kin, own[:known], core="another", pull=3.0)
        return abs(float(weights @ unseen / (truth @ unseen)) - 1)

    assert error(0) > 0.2
    assert error(5) < 0.05


def test_a_new_device_is_as_fast_as_those_with_its_core() -> None:
    rows = made_rows()
    kin = [row for row in rows if row.device.name != KIN[-1].name]
    like_third = fit_new_device(kin, [], core=KIN[2].core, pull=0.0)
    np.testing.assert_allclose(like_third, TRUTH * 1.4, rtol=1e-3)


def test_old_rows_tell_about_their_own_device_only() -> None:
    old = KIN[0].name
    rows = [
        row._replace(is_old=True, avg_ms=3 * row.avg_ms) if row.device.name == old else row
        for row in made_rows()
    ]
    found = fit(rows, pull=0.01)
    np.testing.assert_allclose(found.devices[old], TRUTH * 3, rtol=0.01)
    np.testing.assert_allclose(found.kinds[KIN[0].kind], TRUTH * 1.4, rtol=1e-3)


def test_the_error_falls_with_the_rows_of_a_device() -> None:
    curve = evaluate.learning_curve(made_rows(noise=0.02), splits=2, seed=1)
    assert list(curve) == [0, 1, 3, 5, 10]
    assert curve[10] < 0.5 * curve[0]


def test_outside_of_the_calibrated_range_there_is_a_bracket_and_no_point() -> None:
    known = Calibrated(
        weights=tuple(TRUTH), width=0.1, widest=0.7, rows=20, least=10_000_000, most=1_000_000_000
    )
    model = DeviceModel(
        source="test", features=FEATURES, runtime="ncnn", coverage=0.9, devices={"raspberry-pi-4": known}
    )
    device = DEVICES["raspberry-pi-4"]
    inside, outside = (predict(model, device, region(n)) for n in (20_000_000, 2_000_000))
    assert inside.value_ms is not None
    assert inside.low_ms < inside.value_ms < inside.high_ms
    assert inside.provenance == "modelled"
    assert outside.value_ms is None
    assert outside.high_ms / outside.low_ms == pytest.approx(np.exp(1.4))
    assert "outside calibration" in outside.note
    with pytest.raises(ConfigError, match="no published latency"):
        predict(model, DEVICES["pixel-3a"], region(20_000_000))


def test_features_take_the_caches_of_the_device() -> None:
    levels = tuple(Misses(10 * misses, misses) for misses in range(12))
    counted = msgspec.structs.replace(region(1000), l1d=(Misses(70, 0), Misses(50, 0)), l2=levels)
    device = msgspec.structs.replace(DEVICES["raspberry-pi-5"], l1d_kib=64, llc_kib=2048)
    found = dict(zip(FEATURES, features(counted, device), strict=True))
    assert (found["l1d_misses"], found["llc_sequential"], found["llc_random"]) == (50, 9, 81)
    assert found["scalar"] == counted.branch + counted.other


def test_every_fact_of_a_device_names_its_source() -> None:
    assert len([device for device in DEVICES.values() if device.rows]) == 43
    for device in DEVICES.values():
        for fact in ("core", "clock_mhz", "l1d_kib", "l2_kib", "llc_kib", "dotprod"):
            assert device.source[fact], (device.name, fact)
        assert device.isa == "armv7" or device.stream in STREAMS


def test_a_device_that_is_not_known_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"raspberry-pi-4"):
        device_named("raspberry-pi-44")


def test_rows_are_joined_with_the_ncnn_of_their_time() -> None:
    assert [version_of(day) for day in ("2019-06-01", "2023-06-15", "2024-07-01", "2026-03-01")] == [
        "1.0.20221128",
        "1.0.20230816",
        "1.0.20240820",
        "1.0.20260114",
    ]
    assert {job.version for job in wanted()} == set(tools.NCNN_WHEELS)


def test_the_frozen_model_is_what_the_committed_counts_give() -> None:
    frozen, model = load_model(), refit()
    assert set(frozen.devices) == set(model.devices)
    for name, known in model.devices.items():
        was = frozen.devices[name]
        assert (was.rows, was.least, was.most) == (known.rows, known.least, known.most)
        np.testing.assert_allclose(was.weights, known.weights, rtol=1e-3, atol=1e-9)
        assert was.width == pytest.approx(known.width, rel=1e-3)


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no network file"):
        count_all(tmp_path, [], tmp_path / "counts.json", lambda what, done, total: None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--input", "224,224", "--device", "raspberry-pi-4"], 2, "is not WIDTH,HEIGHT,CHANNELS"),
        (["--input", "8,8,3", "--device", "nokia-3310"], 3, "device 'nokia-3310': is not known"),
    ],
)
def test_wrong_words_are_one_sentence(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    param = tmp_path / "net.param"
    param.write_text(NET)
    command = [sys.executable, "-m", "edgepack", "calibrate", "predict", "--params", str(param), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# 32 x 32 x 3, eight 3 x 3 filters without padding: 30 x 30 x 8, then ten outputs.
NET = """7767517
3 3
Input data 0 1 data
Convolution conv 1 1 data maps 0=8 1=3 6=216 9=1
InnerProduct scores 1 1 maps output 0=10 2=72000
"""


@pytest.fixture(scope="module")
def ncnn_parts() -> None:
    try:
        tools.locate()
        tools.fetch_ncnn(lambda what, done, total: None)
    except ToolError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("ncnn_parts")
def test_a_network_is_counted_the_same_twice_and_its_arithmetic_is_that_of_its_shapes(tmp_path: Path) -> None:
    param = tmp_path / "net.param"
    param.write_text(NET)
    counts = [
        ncnn.count(param, (32, 32, 3), STREAMS["a72"], HIERARCHIES, "1.0.20240820", deadline_s=60)
        for _ in range(2)
    ]
    assert counts[0] == counts[1]
    assert counts[0].instructions > 50_000
    assert len(counts[0].l2) == 12
    assert counts[0].l2[0].misses >= counts[0].l2[5].misses
    plain = ncnn.arithmetic(param, (32, 32, 3), STREAMS["a72"], "1.0.20240820", deadline_s=60)
    assert plain == (216 * 30 * 30 + 72_000, 216 + 72_000)


@pytest.mark.usefixtures("ncnn_parts")
def test_a_file_that_is_no_network_is_refused_with_what_to_give(tmp_path: Path) -> None:
    param = tmp_path / "net.param"
    param.write_text("not a network\n")
    with pytest.raises(
        MeasureError, match=r"net.param: .*ncnn cannot load this network.*Give a network file"
    ):
        ncnn.count(param, (8, 8, 3), STREAMS["a72"], HIERARCHIES, "1.0.20240820", deadline_s=60)
    param.write_text("7767517\n1 1\nConvolution conv one 1\n")
    with pytest.raises(DataError, match="is not a network file of ncnn"):
        ncnn.arithmetic(param, (8, 8, 3), STREAMS["a72"], "1.0.20240820", deadline_s=60)
