"""A device of one's own: a few runs make a profile of it, and runs that cannot be are refused."""

from pathlib import Path

import msgspec
import pytest

from edgepack.calibrate import own
from edgepack.errors import ConfigError, DataError
from edgepack.latency.devices import device_named, load_devices
from edgepack.latency.model import load_model, predict
from tests.test_calibrate import DEVICES, KIN, KNOWN, NET, TRANSFER, made_rows, model_of, region


def test_own_runs_make_a_device_that_is_predicted_like_any_other(tmp_path: Path) -> None:
    device = own.described("my-phone", "cortex-a72", 2000)
    assert (device.stream, device.llc_kib) == ("a72", DEVICES["raspberry-pi-4"].llc_kib)
    rows = [row._replace(device=device, avg_ms=1.7 * row.avg_ms) for row in made_rows()[:3]]
    model = model_of(raspberry_pi_4=KNOWN)
    known = own.fitted(model, device, rows, "ncnn")
    assert (known.own_runs, known.width) == (3, TRANSFER.by_own_rows[3])
    own.write(tmp_path, device, known)
    assert load_devices(tmp_path)["my-phone"] == device
    merged = msgspec.structs.replace(model, devices=model.devices | load_model(tmp_path).devices)
    mine = predict(merged, device_named("my-phone", tmp_path), region(20_000_000))
    kin = predict(model, device, region(20_000_000))
    factor = 1.7 * KIN[0].clock_mhz ** -1 * 2000
    assert mine.value_ms is not None
    assert kin.value_ms is not None
    assert mine.value_ms / kin.value_ms == pytest.approx(factor, rel=0.05)
    assert "own runs (3)" in mine.note


def test_a_run_that_no_such_core_can_have_is_refused() -> None:
    device = own.described("my-phone", "Cortex-A72", 2000)
    rows = [row._replace(device=device, avg_ms=row.avg_ms / 100) for row in made_rows()[:3]]
    with pytest.raises(DataError, match=r"net0: takes .* ms, where a Cortex-A72 at this clock takes some"):
        own.fitted(model_of(raspberry_pi_4=KNOWN), device, rows, "ncnn")


def test_own_runs_in_another_runtime_are_wider_and_valid_near_them_only() -> None:
    device = own.described("my-phone", "Cortex-A72", 2000)
    rows = [row._replace(device=device) for row in made_rows()[:4]]
    known = own.fitted(model_of(raspberry_pi_4=KNOWN), device, rows, "litert")
    assert known.width == pytest.approx(TRANSFER.by_own_rows[3] + TRANSFER.same_core)
    assert known.most == 2 * max(row.instructions for row in rows)
    assert known.runtime == "litert"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no runs"),
        ("net,ms\n", "has no runs"),
        ("net,ms\nnet.param,1\n", "has the columns net, ms"),
        ("file,ms\nother.param,3\n", "line 2: '.*other.param' is not a file"),
        ("file,ms\nruns.csv,3\n", "'runs.csv' is not a model"),
        ("file,ms\nnet.param,fast\n", "line 2: ms is 'fast'"),
        ("file,ms\nnet.param,-1\n", "ms is '-1'"),
        ("file,ms\nnet.param,nan\n", "ms is 'nan'"),
        ("file,ms,input\nnet.param,3,8x8\n", "input is '8x8'"),
        ("file,ms\nnet.param,3\nnet.tflite,3\n", "has runs of litert and ncnn"),
    ],
)
def test_runs_that_cannot_be_used_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "net.param").write_text(NET)
    (tmp_path / "net.tflite").write_bytes(b"")
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        own.read_runs(tmp_path / "runs.csv", None)


@pytest.mark.parametrize(
    ("name", "core", "clock_mhz", "said"),
    [
        ("raspberry-pi-4", "Cortex-A72", 1800, "is a known device"),
        ("../x", "Cortex-A72", 1800, "is no name"),
        ("my-phone", "Cortex-A99", 1800, "core 'Cortex-A99': is not known"),
        ("my-phone", "Cortex-A72", 2, "is 2 MHz"),
    ],
)
def test_a_device_that_cannot_be_is_refused(name: str, core: str, clock_mhz: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        own.described(name, core, clock_mhz)


def test_files_of_own_devices_that_are_none_are_named(tmp_path: Path) -> None:
    own.write(tmp_path, own.described("my-phone", "Cortex-A72", 2000), KNOWN)
    (tmp_path / "another.toml").write_text("[tool]\nname = 1\n")
    assert load_model(tmp_path).devices["my-phone"] == KNOWN
    learnt = tmp_path / "my-phone.json"
    learnt.write_bytes(msgspec.json.encode({"features": ["one"], "known": KNOWN}))
    with pytest.raises(ConfigError, match=r"my-phone.json: was fitted to other features"):
        load_model(tmp_path)
    learnt.write_text("{}")
    with pytest.raises(ConfigError, match=r"my-phone.json: is nothing learnt of a device"):
        load_model(tmp_path)
    (tmp_path / "bad.toml").write_text("[[device]]\nname = 1\n")
    with pytest.raises(ConfigError, match=r"bad.toml: is not a file of devices"):
        load_devices(tmp_path)
