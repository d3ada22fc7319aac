"""The device model: it finds what was put in, keeps small devices near their kin, and knows its limits."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgepack.calibrate import cross_runtime, evaluate
from edgepack.calibrate.counts import count_all
from edgepack.calibrate.crossed import Choice, calibrated, chosen, crossed
from edgepack.calibrate.fit import BOUNDS, CANDIDATES, OF_COUNTS, fit
from edgepack.calibrate.goals import DeviceErrors, Report, goals, missed
from edgepack.calibrate.rows import Row, version_of, wanted
from edgepack.calibrating import refit, render
from edgepack.errors import ConfigError, DataError, MeasureError, ToolError
from edgepack.latency.devices import device_named, load_devices
from edgepack.latency.features import FEATURES, HIERARCHIES, dtype, features, memory_bytes
from edgepack.latency.model import (
    Calibrated,
    DeviceModel,
    Transfer,
    cycles,
    known_of,
    load_model,
    predict,
    promised,
)
from edgepack.latency.streams import STREAMS
from edgepack.runtimes import ncnn
from edgepack.runtimes.qemu import Misses, Region
from edgepack.tools import arm as tools

DEVICES = load_devices(None)
KIN = [device for device in DEVICES.values() if device.kind == "ooo-a57" and device.rows][:4]
TRUTH = np.array([0.5, 0.7, 9.0, 0.6, 0.4, 0.8, 0.5, 0.9, 0.5, 0.4, 20.0, 8.0, 15.0, 90.0, 4.0])
CHOICE = Choice(0.3, OF_COUNTS)
TRANSFER = Transfer(same_core=0.3, same_kind=0.5, by_own_rows={1: 0.25, 3: 0.2, 5: 0.15, 10: 0.1})


def made_rows(noise: float = 0.0, nets: int = 24, seed: int = 3) -> list[Row]:
    """Rows of KIN whose cycles are TRUTH x features x a factor of the device, with relative noise."""
    generator = np.random.default_rng(seed)
    per_net = np.exp(generator.normal(0, 1.2, (nets, len(FEATURES)))) * (1e8 / TRUTH)
    rows = []
    for index, device in enumerate(KIN):
        for net, found in enumerate(per_net):
            taken = (1 + 0.2 * index) * TRUTH @ found * np.exp(generator.normal(0, noise))
            rows.append(Row(device, f"net{net}", taken / (device.clock_mhz * 1e3), int(found.sum()), found))
    return rows


def region(instructions: int, lines: int = 0) -> Region:
    tenth = instructions // 10
    lacked = Misses(instructions // 100, 0)
    behind = (*[lacked] * 5, Misses(lines, lines)) * 2
    return Region(instructions, *([tenth] * 10), (lacked,), (lacked,) * 2, behind)


def model_of(**devices: Calibrated) -> DeviceModel:
    named = {name.replace("_", "-"): known for name, known in devices.items()}
    return DeviceModel(
        source="test", features=FEATURES, runtime="ncnn", coverage=0.9, devices=named, transfer=TRANSFER
    )


KNOWN = Calibrated(
    weights=tuple(TRUTH.tolist()), width=0.1, widest=0.7, rows=20, least=10_000_000, most=1_000_000_000
)


def test_a_fit_finds_the_weights_that_made_the_rows() -> None:
    found = fit(made_rows(), pull=0.01)
    for index, device in enumerate(KIN):
        np.testing.assert_allclose(found[device.name], TRUTH * (1 + 0.2 * index), rtol=1e-3)


def test_weights_stay_within_what_a_core_can_do() -> None:
    found = fit(made_rows(noise=0.6, nets=9), pull=0.0)
    least, greatest = np.array([BOUNDS[name] for name in FEATURES]).T
    for weights in found.values():
        assert (weights >= least * 0.999).all()
        assert (weights <= greatest * 1.001).all()


def test_a_feature_that_is_left_out_weighs_nothing() -> None:
    without = CANDIDATES[1]
    assert without.greatest[FEATURES.index("streamed")] == 0
    for weights in fit(made_rows(), pull=0.3, bounds=without).values():
        assert weights[FEATURES.index("streamed")] == 0
        assert (weights[:9] > 0).all()


def test_features_are_chosen_by_what_errs_least_on_networks_left_out() -> None:
    needed = [row._replace(avg_ms=row.avg_ms * (1 + row.features[-1] / 5e7)) for row in made_rows()]
    assert chosen(needed).bounds.greatest[-1] > 0


def test_one_row_that_is_far_off_moves_a_fit_little() -> None:
    rows = made_rows(noise=0.02)
    bad = [row._replace(avg_ms=5 * row.avg_ms) if row.net == "net7" else row for row in rows]
    plain, moved = (fit(those, pull=0.3)[KIN[0].name] for those in (rows, bad))
    tested = rows[3].features
    assert moved @ tested == pytest.approx(plain @ tested, rel=0.1)


def test_a_device_with_two_rows_takes_after_its_kind() -> None:
    rows = made_rows()
    poor = KIN[0].name
    few = [row for row in rows if row.device.name != poor or row.net in ("net0", "net1")]
    np.testing.assert_allclose(fit(few, pull=0.3)[poor], TRUTH, rtol=0.02)


def test_errors_are_of_fits_that_lacked_the_network() -> None:
    rows = made_rows(noise=0.1, nets=12)
    found = crossed(rows, CHOICE, 4)
    for index in (0, 5, 17):
        others = [row for row, fold in zip(rows, found.fold, strict=True) if fold != found.fold[index]]
        weights = fit(others, pull=0.3)[rows[index].device.name]
        assert found.errors[index] == pytest.approx(evaluate.log_error(weights, rows[index]))


def test_intervals_cover_what_was_held_out() -> None:
    splits = list(evaluate.outer_hold_out(made_rows(noise=0.1, nets=30), splits=4, seed=1))
    brief = evaluate.in_brief(one for split in splits for one in split)
    assert brief.rows == 4 * 10 * len(KIN)
    assert 0.8 < brief.covered <= 1.0
    assert brief.mean < 0.2


def test_held_out_networks_are_in_no_training_row() -> None:
    seen: list[set[str]] = []

    def spy(train: list[Row], test: list[Row]) -> list[evaluate.Held]:
        seen.append({row.net for row in train} & {row.net for row in test})
        return [evaluate.Held(row, row.avg_ms, 0, 1) for row in test]

    for split in evaluate.outer_hold_out(made_rows(nets=12), splits=3, seed=1, predictor=spy):
        assert len({one.row.net for one in split}) == 4
    one_by_one = list(evaluate.leave_one_net_out(made_rows(nets=12), spy))
    assert sum(len(split) for split in one_by_one) == len(made_rows(nets=12))
    assert not any(seen)


def test_an_interval_is_that_of_the_jackknife_plus_by_folds() -> None:
    unit = np.ones(len(FEATURES)) / len(FEATURES)
    known = msgspec.structs.replace(
        KNOWN,
        weights=tuple(unit * 100),
        without=(tuple(unit * 90), tuple(unit * 110)),
        errors=(tuple([0.1] * 5), tuple([0.1, 0.1, 0.1, 0.2, 3.0])),
    )
    found = cycles(known, np.ones(len(FEATURES)), 0.8)
    # Nine of ten (0.8 x 11, rounded up): all but the outermost.
    assert found.value == pytest.approx(100)
    assert found.high == pytest.approx(110 * np.exp(0.2))
    assert found.low == pytest.approx(90 * np.exp(-0.1))


def test_what_intervals_promise_is_less_than_what_they_cover() -> None:
    assert promised(10, 28, 0.9) == pytest.approx(0.8 - (1 - 10 / 28) / 11)
    assert promised(28, 28, 0.9) == pytest.approx(0.8)


def test_a_coverage_far_from_nine_tenths_is_unlikely() -> None:
    row = made_rows(nets=1)[0]
    hit, miss = evaluate.Held(row, 1, 0, 2 * row.avg_ms), evaluate.Held(row, 1, 0, 0)
    assert evaluate.chance([hit] * 25 + [miss] * 3) > 0.5
    assert evaluate.chance([hit] * 20 + [miss] * 8) < 0.01


def test_a_device_never_seen_is_as_fast_as_those_with_its_core() -> None:
    fitted = calibrated(made_rows(), CHOICE)
    model = model_of(**{name.replace("-", "_"): known for name, known in fitted.items()})
    like = KIN[2]
    unseen = msgspec.structs.replace(like, name="unseen")
    found = known_of(model, unseen)
    same = [index for index, device in enumerate(KIN) if device.core == like.core]
    np.testing.assert_allclose(found.weights, TRUTH * (1 + 0.2 * np.mean(same)), rtol=0.01)
    assert (found.rows, found.width) == (0, TRANSFER.same_core)
    another = known_of(model, msgspec.structs.replace(unseen, core="another"))
    np.testing.assert_allclose(another.weights, TRUTH * 1.3, rtol=0.01)
    assert another.width == TRANSFER.same_kind


def test_a_device_is_left_out_with_its_network() -> None:
    for one in evaluate.leave_one_device_out(made_rows(), CHOICE):
        assert len(one.by_kind) == 24
        assert len(one.by_core) in (0, 24)


def test_old_rows_tell_about_their_own_device_only() -> None:
    old = KIN[0].name
    rows = [
        row._replace(is_old=True, avg_ms=3 * row.avg_ms) if row.device.name == old else row
        for row in made_rows()
    ]
    np.testing.assert_allclose(fit(rows, pull=0.01)[old], TRUTH * 3, rtol=0.01)
    np.testing.assert_allclose(fit(rows, pull=0.01)[KIN[1].name], TRUTH * 1.2, rtol=0.01)
    assert calibrated(rows, CHOICE)[old].is_old


def test_the_error_falls_with_the_rows_of_a_device() -> None:
    errors = evaluate.errors_by_own_rows(made_rows(noise=0.02), CHOICE, seed=1)
    sizes = {known: np.median(np.abs(found)) for known, found in errors.items()}
    assert list(sizes) == [0, 1, 3, 5, 10]
    assert sizes[10] < 0.5 * sizes[0]
    far = evaluate.transfer(evaluate.leave_one_device_out(made_rows(), CHOICE), errors)
    assert list(far.by_own_rows) == [1, 3, 5, 10]
    assert far.by_own_rows[10] < far.same_kind


def test_twins_are_apart_by_what_a_factor_does_not_explain() -> None:
    rows = made_rows()
    twin = msgspec.structs.replace(KIN[0], name="twin")
    rows += [row._replace(device=twin, avg_ms=2 * row.avg_ms) for row in rows if row.device == KIN[0]]
    assert evaluate.twins(rows)["twin"] == pytest.approx(0, abs=1e-9)


def test_outside_of_the_calibrated_range_there_is_a_bracket_and_no_point() -> None:
    model, device = model_of(raspberry_pi_4=KNOWN), DEVICES["raspberry-pi-4"]
    inside, outside = (predict(model, device, region(n)) for n in (20_000_000, 2_000_000))
    assert inside.value_ms is not None
    assert inside.low_ms < inside.value_ms < inside.high_ms
    assert inside.provenance == "modelled"
    assert outside.value_ms is None
    assert outside.high_ms / outside.low_ms == pytest.approx(np.exp(1.4))
    assert "outside calibration: 2 M instructions" in outside.note


@pytest.mark.parametrize(
    ("change", "runtime", "said"),
    [
        ({"most_memory_bytes": 640}, "ncnn", "704 bytes from memory, calibrated are up to 640"),
        ({"dtypes": ("int8",)}, "ncnn", "computes in float, calibrated is int8"),
        ({}, "litert", "runs in litert, calibrated is ncnn"),
    ],
)
def test_memory_dtype_and_runtime_have_a_range_too(
    change: dict[str, object], runtime: str, said: str
) -> None:
    model = model_of(raspberry_pi_4=msgspec.structs.replace(KNOWN, **change))
    found = predict(model, DEVICES["raspberry-pi-4"], region(20_000_000, lines=11), runtime)
    assert found.value_ms is None
    assert said in found.note


def test_a_device_without_rows_is_predicted_from_its_kin_and_one_without_kin_is_refused() -> None:
    model = load_model(None)
    found = predict(model, DEVICES["pixel-2"], region(20_000_000))
    twin = predict(model, msgspec.structs.replace(DEVICES["khadas-vim3"], clock_mhz=2350), region(20_000_000))
    assert found.value_ms == twin.value_ms
    assert found.high_ms / found.low_ms > twin.high_ms / twin.low_ms
    assert "none of its own" in found.note
    with pytest.raises(ConfigError, match="no published latency"):
        predict(model, DEVICES["raspberry-pi-2"], region(20_000_000))


def brief(**errors: float) -> evaluate.Errors:
    shares = {"mean": 0.05, "median": 0.04, "p90": 0.12, "worst": 0.5, "covered": 0.9} | errors
    return evaluate.Errors(rows=360, **shares)


def test_a_report_names_every_goal_and_where_it_is_missed() -> None:
    poor = brief(p90=0.2)
    device = DeviceErrors(
        device="raspberry-pi-4",
        core="Cortex-A72",
        kind="ooo-a57",
        clock_mhz=1800,
        is_old=False,
        stands_in=False,
        counts=poor,
        arithmetic=brief(mean=0.4),
        unseen_median=0.1,
        chance=0.005,
        twin_p90=0.16,
        misses=missed("ooo-a57", poor, 0.005),
    )
    report = Report(
        splits=40,
        rows=1000,
        devices=(device,),
        hold_out=brief(),
        hold_out_arithmetic=brief(mean=0.4),
        leave_one_net_out=brief(),
        leave_one_net_out_arithmetic=brief(),
        unseen_device_median=0.2,
        unseen_device_median_of_kind=0.3,
        transfer=TRANSFER,
        median_by_own_rows={0: 0.2, 5: 0.1},
        litert=cross_runtime.errors(load_model(None)),
    )
    assert device.misses == ("p90", "chance")
    assert [goal.is_met for goal in goals(report)] == [False, False, True, False, True]
    told = render(report, as_json=False)
    assert told.count("MISSED: ") == 3
    assert "raspberry-pi-4 4.0% / 20.0%" in told
    counted = msgspec.json.decode(render(report, as_json=True))
    assert counted["devices"][0]["counts"]["p90"] == 0.2
    assert len(counted["goals"]) == 5


def test_features_take_the_caches_of_the_device() -> None:
    levels = tuple(Misses(10 * misses, misses) for misses in range(12))
    assert memory_bytes(msgspec.structs.replace(region(1000), l2=levels)) == 50 * 64
    counted = msgspec.structs.replace(region(1000), l1d=(Misses(70, 0), Misses(50, 0)), l2=levels)
    device = msgspec.structs.replace(DEVICES["raspberry-pi-5"], l1d_kib=64, llc_kib=2048)
    found = dict(zip(FEATURES, features(counted, device), strict=True))
    assert (found["l1d_misses"], found["llc_sequential"], found["llc_random"]) == (50, 9, 81)
    assert found["streamed"] == 11
    assert dtype(counted) == "float"
    assert dtype(msgspec.structs.replace(counted, multiply_int=101)) == "int8"


def test_every_fact_of_a_device_names_its_source() -> None:
    assert len([device for device in DEVICES.values() if device.rows]) == 43
    for device in DEVICES.values():
        for fact in ("core", "clock_mhz", "l1d_kib", "l2_kib", "llc_kib", "dotprod"):
            assert device.source[fact], (device.name, fact)
        assert device.isa == "armv7" or device.stream in STREAMS


def test_a_core_that_qemu_lacks_is_said_to_have_a_stand_in() -> None:
    for device in DEVICES.values():
        assert device.stands_in == (device.core.lower() != device.emulated_as), device.name


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
    frozen, model = load_model(None), refit()
    assert set(frozen.devices) == set(model.devices)
    for name, known in model.devices.items():
        was = frozen.devices[name]
        assert (was.rows, was.least, was.most) == (known.rows, known.least, known.most)
        np.testing.assert_allclose(was.weights, known.weights, rtol=1e-3, atol=1e-9)
        assert was.width == pytest.approx(known.width, rel=1e-3)
        assert (was.dtypes, was.most_memory_bytes) == (known.dtypes, known.most_memory_bytes)
    assert frozen.transfer is not None
    assert frozen.transfer.same_core < frozen.transfer.same_kind


def test_a_folder_without_networks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no network file"):
        count_all(tmp_path, [], tmp_path / "counts.json", lambda what, done, total: None)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            "predict --params net.param --input 224,224 --device raspberry-pi-4",
            2,
            "is not WIDTH,HEIGHT,CHANNELS",
        ),
        (
            "predict --params net.param --input 8,8,3 --device nokia-3310",
            3,
            "device 'nokia-3310': is not known",
        ),
        ("predict --params net.param --input 8,8,3 --device imx7-dual", 3, "has no published latency"),
        (
            "device mine --core Cortex-A99 --clock-mhz 2000 --runs runs.csv",
            3,
            "core 'Cortex-A99': is not known",
        ),
        ("device mine --core Cortex-A72 --clock-mhz 2000 --runs runs.csv", 4, "line 2: ms is 'x'"),
    ],
)
def test_wrong_words_are_one_sentence(tmp_path: Path, words: str, code: int, said: str) -> None:
    (tmp_path / "net.param").write_text(NET)
    (tmp_path / "runs.csv").write_text("file,ms\nnet.param,x\n")
    command = [sys.executable, "-m", "edgepack", "calibrate", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "devices").exists()


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


def test_an_estimate_tells_how_far_its_device_errs() -> None:
    known = msgspec.structs.replace(KNOWN, without=(KNOWN.weights,) * 2, errors=((0.01, 0.05), (0.2,)))
    note = predict(model_of(raspberry_pi_4=known), DEVICES["raspberry-pi-4"], region(20_000_000)).note
    assert note.endswith("ncnn, median error 5.1 % on networks left out")
