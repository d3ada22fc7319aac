"""Measuring on a phone: a real adb speaks to a real adbd (Debian 13's), whose processor is our emulator.

Only what Android would say of itself is invented (tests/phone.py), and two states of a device that this adbd
cannot be in: `unauthorized`, for it asks nobody, and `no permissions`, for it hangs on no USB cable. Their
lines are fed to edgepack through a script in adb's place.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgepack import errors
from edgepack.cli import cli
from edgepack.errors import ConvertError, EdgepackError, LimitError, MeasureError, ToolError
from edgepack.health import render_tools
from edgepack.measure import device
from edgepack.measure.samples import quantile
from edgepack.profiles import load_profiles
from edgepack.results import Measurement
from edgepack.runtimes import adb, arm
from edgepack.tools import adb as tool
from tests import phone as phones
from tests.phone import Phone

INT8 = Path(__file__).parent / "data" / "arm" / "int8.tflite"
ROW = {"history": np.arange(1, 11, dtype=np.int32)[None, :]}
DEADLINE_S = 60

needs_phone = pytest.mark.skipif(bool(phones.what_is_missing()), reason=phones.what_is_missing())


@pytest.fixture(scope="module")
def running() -> Iterator[Phone]:
    try:
        phones.unpacked()
    except EdgepackError as error:
        pytest.skip(f"Debian's adbd cannot be fetched: {error}")
    with phones.switched_on() as phone:
        yield phone


@pytest.fixture
def phone(running: Phone, monkeypatch: pytest.MonkeyPatch) -> Phone:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(device, "_TIMED_S", 0.5)
    return running


@contextmanager
def changed(path: Path, text: str) -> Iterator[None]:
    before = path.read_bytes()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_bytes(before)


def measure_on(phone: Phone) -> Measurement:
    return device.measure(INT8, "ab" * 32, phone.serial, ROW, lambda *_: None, deadline_s=DEADLINE_S)


@needs_phone
def test_a_phone_gives_milliseconds_with_their_intervals_and_keeps_nothing(phone: Phone) -> None:
    done = CliRunner().invoke(cli, ["measure", str(INT8), "--device", f"adb:{phone.serial}", "--json"])
    found = json.loads(done.stdout)
    named = {number["name"]: number for number in found["numbers"]}
    assert found["target"] == f"adb:{phone.serial}"
    for name in ("latency_p50_ms", "latency_p95_ms", "cpu_p50_ms", "latency_first_ms"):
        number = named[name]
        assert number["provenance"] == "measured"
        assert 0 < number["low"] <= number["value"] <= number["high"], name
        assert not number["exact"]
        assert "samples on this one device, taken as independent" in number["error"]
    assert named["latency_p50_ms"]["value"] < named["latency_first_ms"]["value"]
    assert "7 first inferences" in named["latency_first_ms"]["source"]
    told = named["latency_p50_ms"]["source"]
    assert "LiteRT 1.4.0, one thread, Fairphone FP4 (SM7225, Android 13)" in told
    assert "not pinned, ran on Cortex-A76 (schedutil, up to 2208 MHz) 100%" in told
    assert "thermal status 0, 0 afterwards; battery 80 %" in told
    assert named["max_score_difference"]["value"] == 0, "an all-integer model"
    assert phone.left_behind() == []


@needs_phone
def test_memory_and_scores_on_the_phone_are_those_of_the_emulated_core(phone: Phone) -> None:
    emulation = load_profiles()["android-arm64-high"].emulation
    assert emulation is not None
    counted = arm.count(INT8, ROW, emulation, deadline_s=DEADLINE_S)
    reached = adb.connect("")
    with adb.workplace(reached) as folder:
        adb.push(reached, folder, INT8, ROW)
        timing = adb.drive(reached, folder, INT8, ROW, runs=5, deadline_s=DEADLINE_S, watches_pages=True)
        scores = adb.scores(reached, folder, 1)
    assert len(timing.wall_ns) == len(timing.cpu_ns) == len(timing.processor) == 6
    assert scores.tobytes() == counted.scores.tobytes()
    assert counted.peak_memory_bytes is not None
    assert abs(timing.peak_memory_bytes - counted.peak_memory_bytes) < 0.01 * counted.peak_memory_bytes


@needs_phone
def test_a_serial_that_is_not_connected_is_told_with_those_that_are(phone: Phone) -> None:
    with pytest.raises(MeasureError, match=f"adb:XYZ: is not connected; connected are {phone.serial}. Name"):
        adb.connect("XYZ")


@needs_phone
def test_one_of_several_devices_must_be_named_and_one_that_is_gone_is_offline(phone: Phone) -> None:
    other = phone._replace(port=phones.free_port())
    with phones.daemon(other) as pid:
        with pytest.raises(MeasureError, match="several devices are connected") as raised:
            adb.connect("")
        assert phone.serial in str(raised.value)
        assert other.serial in str(raised.value)
        assert adb.connect(other.serial).name == f"adb:{other.serial}"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: f"{other.serial}\toffline" in phone.adb("devices"))
        with pytest.raises(MeasureError, match=r"is offline\. Unplug the phone"):
            adb.connect(other.serial)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + phones.PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("listed", "serial", "sentence"),
    [
        (
            "1A2B unauthorized usb:1-1 transport_id:1",
            "1A2B",
            "has not authorised this computer. Unlock the phone",
        ),
        (
            "1A2B no permissions (missing udev rules?); see [http://x] usb:1-1",
            "1A2B",
            "may not be opened by this user. Install",
        ),
        ("1A2B recovery usb:1-1 transport_id:1", "", "is in the state 'recovery'. Start the phone's Android"),
        ("", "", "adb: no device is connected. Plug a phone in"),
        ("", "1A2B", "adb:1A2B: is not connected; no device is connected. Plug it in"),
    ],
)
def test_a_device_that_is_not_ready_is_told_with_the_remedy(
    listed: str, serial: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "adb"
    script.write_text(
        f"#!/bin/sh\necho '* daemon started successfully'\necho 'List of devices attached\n{listed}\n'\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MeasureError) as raised:
        adb.connect(serial)
    assert sentence in str(raised.value)


@needs_phone
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("ro.product.cpu.abi=armeabi-v7a", "its ABI is armeabi-v7a; the driver is built for arm64-v8a"),
        ("ro.product.cpu.abi=", "its ABI is not told"),
        ("ro.product.cpu.abi=arm64-v8a\nro.boot.qemu=1", "is an emulator, whose milliseconds are no phone's"),
    ],
)
def test_a_device_that_cannot_run_the_driver_is_refused(phone: Phone, line: str, sentence: str) -> None:
    with (
        changed(phone.root / "system/build.prop", f"{line}\n"),
        pytest.raises(MeasureError, match=sentence),
    ):
        measure_on(phone)


@needs_phone
def test_a_device_that_tells_nothing_is_measured_all_the_same(phone: Phone) -> None:
    with (
        changed(phone.root / "system/build.prop", "ro.product.cpu.abi=arm64-v8a\n"),
        changed(phone.root / "usr/bin/dumpsys", "#!/bin/sh\nexit 1\n"),
    ):
        (median, *_) = measure_on(phone).numbers
    assert "one thread, a device without a name; not pinned, ran on Cortex-A76" in median.source


@needs_phone
def test_a_full_device_is_told_as_that(phone: Phone) -> None:
    full = phone.root / "full"
    full.touch()
    try:
        with pytest.raises(MeasureError, match=r"has no space left in /data/local/tmp\. Free 20 MB"):
            measure_on(phone)
    finally:
        full.unlink()
    assert phone.left_behind() == []


@needs_phone
@pytest.mark.parametrize(
    ("runner", "sentence"),
    [
        ("kill -SEGV $$", "the runtime died with SIGSEGV"),
        ("kill -ILL $$", "the runtime met an instruction that the core lacks"),
        ("echo driver: out of luck >&2; exit 4", "the runtime refused it .out of luck."),
    ],
)
def test_a_driver_that_dies_is_told_and_cleaned_up(phone: Phone, runner: str, sentence: str) -> None:
    with (
        changed(phone.root / "system/bin/run-arm64", f"#!/bin/sh\n{runner}\n"),
        pytest.raises(MeasureError, match=rf"int8\.tflite on adb:{phone.serial}: {sentence}"),
    ):
        measure_on(phone)
    assert phone.left_behind() == []


HANGS = "#!/bin/sh\nexec /usr/bin/busybox sleep 1000\n"


@needs_phone
def test_a_run_past_its_deadline_is_stopped_on_the_device_too(phone: Phone) -> None:
    reached = adb.connect(phone.serial)
    with (
        changed(phone.root / "system/bin/run-arm64", HANGS),
        pytest.raises(LimitError, match=r"int8\.tflite on adb:.*: still running after 1 s"),
        adb.workplace(reached) as folder,
    ):
        adb.push(reached, folder, INT8, ROW)
        try:
            adb.drive(reached, folder, INT8, ROW, runs=5, deadline_s=1)
        finally:
            pid = (phone.root / folder.lstrip("/") / "pid").read_text().strip()
            assert is_alive(pid)
    wait_until(lambda: not is_alive(pid))
    assert phone.left_behind() == []


def is_alive(pid: str) -> bool:
    try:
        return "sleep" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


@needs_phone
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_on_the_device(phone: Phone, number: int, code: int) -> None:
    words = [sys.executable, "-m", "edgepack", "measure", str(INT8), "--device", "adb"]
    with changed(phone.root / "system/bin/run-arm64", HANGS):
        child = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        room = phone.root / "data/local/tmp"
        wait_until(lambda: any(path.read_text() for path in room.glob("*/pid")))
        pid = next(room.glob("*/pid")).read_text().strip()
        wait_until(lambda: is_alive(pid))
        child.send_signal(number)
        said = child.communicate(timeout=DEADLINE_S)[1]
    assert child.returncode == code
    assert "Traceback" not in said
    wait_until(lambda: not is_alive(pid))
    assert phone.left_behind() == []


@needs_phone
def test_a_connection_that_breaks_is_told_although_adb_ends_with_0(phone: Phone) -> None:
    other = phone._replace(port=phones.free_port())
    with phones.daemon(other) as pid:
        reached = adb.connect(other.serial)
        with pytest.raises(MeasureError, match="the connection was lost"):
            adb.shell(reached, f"kill -9 {pid}; sleep 5", deadline_s=DEADLINE_S)


@needs_phone
def test_what_a_lost_connection_left_is_removed_after_a_day(phone: Phone) -> None:
    old, new, foreign = (phone.root / "data/local/tmp" / name for name in ("edgepack-1", "edgepack-2", "x"))
    for folder in (old, new, foreign):
        folder.mkdir()
        (folder / "driver").touch()
    for folder in (old, foreign):
        os.utime(folder, (time.time() - 3 * 86_400,) * 2)
    with adb.workplace(adb.connect("")) as made:
        assert phone.left_behind() == sorted([Path(made).name, "edgepack-2", "x"])
    for folder in (new, foreign):
        adb.shell(adb.connect(""), f"rm -rf /data/local/tmp/{folder.name}", deadline_s=DEADLINE_S)


@needs_phone
def test_a_model_of_another_length_is_a_breach_of_the_contract(phone: Phone) -> None:
    wrong = {"history": np.ones((1, 7), np.int32)}
    reached = adb.connect("")
    with pytest.raises(ConvertError, match="int32"), adb.workplace(reached) as folder:
        adb.push(reached, folder, INT8, wrong)
        adb.drive(reached, folder, INT8, wrong, runs=0, deadline_s=DEADLINE_S)


def test_without_adb_the_remedy_is_told_and_doctor_finds_nothing_amiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    with pytest.raises(ToolError, match="apt-get install adb"):
        adb.connect("")
    told = render_tools(tool.status(), as_json=False)
    assert told.startswith("- adb (optional)")
    assert told.endswith("everything is there\n")


def test_adb_is_found_in_androids_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "platform-tools" / "adb"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    assert tool.find() == program


@pytest.mark.parametrize("words", [[], ["-t", "android-arm64-low", "--device", "adb"]])
def test_a_target_and_a_device_are_alternatives(words: list[str]) -> None:
    done = CliRunner().invoke(cli, ["measure", str(INT8), *words])
    assert done.exit_code == errors.EXIT_USAGE
    assert "one of the two: -t TARGET or --device adb:SERIAL" in done.stderr


def test_another_kind_of_device_is_refused() -> None:
    done = CliRunner().invoke(cli, ["measure", str(INT8), "--device", "ios:1"])
    assert isinstance(done.exception, EdgepackError)
    assert str(done.exception).startswith("device 'ios:1': is not known; allowed is adb:SERIAL")


@pytest.mark.parametrize(
    ("count", "per_cent", "ranks"),
    [(6, 50, (1, 6)), (20, 50, (6, 15)), (100, 50, (40, 61)), (72, 95, (64, 72))],
)
def test_the_interval_of_a_quantile_lies_between_two_samples(
    count: int, per_cent: int, ranks: tuple[int, int]
) -> None:
    found = quantile(list(range(1, count + 1)), per_cent)
    assert (found.low, found.high) == ranks


def test_thousands_of_samples_have_the_interval_of_the_normal_approximation() -> None:
    found = quantile(list(range(1, 4_001)), 50)
    assert found.low == pytest.approx(2_000 - 1.96 * 1_000**0.5, abs=1)
    assert found.high == pytest.approx(2_001 + 1.96 * 1_000**0.5, abs=1)


def test_too_few_samples_have_an_interval_and_no_point() -> None:
    few, enough = (device._latency("latency_p95_ms", list(range(n)), 95, "", "") for n in (71, 72))
    assert few.value is None
    assert few.high == pytest.approx(70e-6)
    assert "97 % interval of the 95th percentile of 71 samples on this one device" in few.error
    assert enough.value == pytest.approx(68e-6)
