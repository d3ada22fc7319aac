"""LiteRT's own aarch64 build on a phone, over adb: one function for each exchange with the device.

The phone has Android's C library and the driver was linked against glibc, so that the loader and the
libraries of the emulated runs travel with it: the same driver, runtime and model file as under emulation.
All of it lies in one fresh folder on the device, which is removed at the end, whatever the end is.
"""

import contextlib
import re
import secrets
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.errors import ConvertError, EdgepackError, LimitError, MeasureError
from edgepack.runtimes.qemu import BROKEN_CONTRACT, Inputs
from edgepack.runtimes.refusal import lacking_operator
from edgepack.tools import adb as tool
from edgepack.tools import arm as tools

ABI = "arm64-v8a"
ROOM = "/data/local/tmp"
"""Where a phone lets adb's user write files and execute them."""

EXCHANGE_S, PUSH_S = 60.0, 300.0
_LOADER = "ld-linux-aarch64.so.1"
_LIBRARIES = (
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
    "librt.so.1",
    "libgcc_s.so.1",
    "libstdc++.so.6",
    "libLiteRtRuntimeCApi.so",
)
_STATUS = "edgepack-status:"
_AUTHORISE = "Unlock the phone, confirm “Allow USB debugging” and measure again."
_NOT_READY = {
    "unauthorized": ("has not authorised this computer", _AUTHORISE),
    "authorizing": ("has not authorised this computer", _AUTHORISE),
    "offline": ("is offline", "Unplug the phone and plug it in again, or run `adb reconnect offline`."),
    "no permissions": (
        "may not be opened by this user",
        "Install the rules for it (Debian: `apt-get install android-sdk-platform-tools-common`) and plug the "
        "phone in again.",
    ),
}


class Phone(NamedTuple):
    """A connected device: the adb that reaches it, and its serial."""

    adb: Path
    serial: str

    @property
    def name(self) -> str:
        """Return how it was named on the command line."""
        return f"adb:{self.serial}"


class Processor(msgspec.Struct, frozen=True, kw_only=True):
    """One processor: `part` is IMPLEMENTER/PART of /proc/cpuinfo; "" and 0 are what could not be read."""

    part: str = ""
    governor: str = ""
    max_khz: int = 0


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device says of itself; empty where it does not say. `battery_percent` is its charge.

    `is_emulator` is Android's emulator, which may run as an ARM device on an ARM computer.
    """

    abi: str
    model: str
    soc: str
    android: str
    thermal_status: str
    battery_percent: str
    processors: Mapping[int, Processor]
    is_emulator: bool = False


class Timing(msgspec.Struct, frozen=True):
    """What the driver said: one entry for each invocation of the process, in their order."""

    heap_peak_bytes: int
    model_pages: int
    page_bytes: int
    wall_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    processor: tuple[int, ...]

    @property
    def peak_memory_bytes(self) -> int:
        """Return the heap's high-water mark and the model's pages that were read."""
        return self.heap_peak_bytes + self.model_pages * self.page_bytes


def connect(serial: str) -> Phone:
    """Return the device `serial`, or the only one when that is "".

    Raises ToolError when adb is missing, MeasureError when there is no such device, when it is not ready to
    be used, or when several are connected and none was named.
    """
    adb = tool.find()
    found = _states(adb)
    if not serial and len(found) != 1:
        raise MeasureError(
            "adb",
            "several devices are connected" if found else "no device is connected",
            allowed=f"they are {', '.join(found)}" if found else "",
            remedy="Name one: --device adb:SERIAL." if found else "Plug a phone in and allow USB debugging.",
        )
    serial = serial or next(iter(found))
    if serial not in found:
        known = f"connected are {', '.join(found)}" if found else "no device is connected"
        remedy = "Name one of them." if found else "Plug it in and allow USB debugging."
        raise MeasureError(f"adb:{serial}", "is not connected", allowed=known, remedy=remedy)
    if found[serial] != "device":
        other = (f"is in the state '{found[serial]}'", "Start the phone's Android, then measure again.")
        said, remedy = _NOT_READY.get(found[serial], other)
        raise MeasureError(f"adb:{serial}", said, remedy=remedy)
    return Phone(adb, serial)


def _states(adb: Path) -> dict[str, str]:
    done = proc.run([adb, "devices", "-l"], deadline_s=EXCHANGE_S)
    if done.returncode:
        raise MeasureError(
            "adb", f"its server does not answer ({_last(done.stderr_tail)})", remedy="Run `adb kill-server`."
        )
    lines = done.stdout.decode(errors="replace").partition("List of devices attached")[2].splitlines()
    rows = [line.split(maxsplit=1) for line in lines if line.strip()]
    return {serial: _state(rest) for serial, rest in rows}


def _state(rest: str) -> str:
    return "no permissions" if rest.startswith("no permissions") else rest.split()[0]


_FACTS = r"""
for key in product.cpu.abi product.manufacturer product.model soc.model build.version.release \
  kernel.qemu boot.qemu; do
  echo "ro.$key=$(getprop ro.$key)"
done
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  for name in scaling_governor scaling_max_freq; do echo "${cpu##*/cpu}.$name=$(cat $cpu/cpufreq/$name)"; done
done
dumpsys battery | grep '^ *level:'
dumpsys thermalservice | grep '^ *Thermal Status:'
cat /proc/cpuinfo
"""


def facts(phone: Phone) -> Facts:
    """Ask the device what it is and how it stands: names, processors, governor, heat, battery.

    Raises MeasureError when the connection is lost, LimitError when it does not answer.
    """
    _, said = shell(phone, f"({_FACTS}) 2>/dev/null", deadline_s=EXCHANGE_S)
    pairs = [re.split("[=:]", line, maxsplit=1) for line in said.splitlines() if re.search("[=:]", line)]
    known = {key.strip(): value.strip() for key, value in pairs}
    maker, model = known.get("ro.product.manufacturer", ""), known.get("ro.product.model", "")
    return Facts(
        abi=known.get("ro.product.cpu.abi", ""),
        model=model if model.lower().startswith(maker.lower()) else f"{maker} {model}".strip(),
        soc=known.get("ro.soc.model", ""),
        android=known.get("ro.build.version.release", ""),
        thermal_status=known.get("Thermal Status", ""),
        battery_percent=known.get("level", ""),
        processors=_processors([(key.strip(), value.strip()) for key, value in pairs], known),
        is_emulator="1" in (known.get("ro.kernel.qemu"), known.get("ro.boot.qemu")),
    )


def _processors(pairs: list[tuple[str, str]], known: Mapping[str, str]) -> dict[int, Processor]:
    told: dict[int, dict[str, str]] = {}
    for key, value in pairs:
        if key == "processor" and value.isdecimal():
            told[int(value)] = {}
        elif told:
            told[max(told)][key] = value
    return {
        index: Processor(
            part=f"{words.get('CPU implementer', '?')}/{words['CPU part']}" if "CPU part" in words else "",
            governor=known.get(f"{index}.scaling_governor", ""),
            max_khz=int(known.get(f"{index}.scaling_max_freq") or 0),
        )
        for index, words in told.items()
    }


def must_be_able(phone: Phone, known: Facts) -> None:
    """Raise MeasureError unless this is a real device that runs aarch64 programs."""
    if known.is_emulator:
        remedy = "Measure on a phone, or on an emulated target (-t)."
        raise MeasureError(phone.name, "is an emulator, whose milliseconds are no phone's", remedy=remedy)
    if known.abi != ABI:
        found = f"its ABI is {known.abi or 'not told'}"
        remedy = "Measure on a 64-bit ARM phone, or on an emulated target (-t)."
        raise MeasureError(phone.name, found, allowed=f"the driver is built for {ABI}", remedy=remedy)


@contextlib.contextmanager
def workplace(phone: Phone) -> Iterator[str]:
    """Make a fresh folder on the device and give its path; kill what runs there and remove it at the end.

    Folders that a lost connection left there are removed when they are more than a day old.
    """
    folder = f"{ROOM}/edgepack-{secrets.token_hex(6)}"
    try:
        stale = f"find {ROOM} -maxdepth 1 -name 'edgepack-*' -mtime +0 -exec rm -rf {{}} + 2>/dev/null"
        status, said = shell(phone, f"mkdir -p {folder} 2>&1 && ({stale}; true)", deadline_s=EXCHANGE_S)
        if status:
            raise _cannot_write(phone, said)
        yield folder
    finally:
        # A device that is gone cannot be cleaned; the error that ends the run says that it is gone.
        with contextlib.suppress(EdgepackError):
            gone = f"kill -9 $(cat {folder}/pid); rm -rf {folder}"
            shell(phone, f"({gone}) 2>/dev/null", deadline_s=EXCHANGE_S)


def push(phone: Phone, folder: str, artifact: Path, inputs: Inputs) -> None:
    """Copy loader, libraries, driver, model and inputs (int32 [N, L] each) into the device's `folder`.

    Raises MeasureError when the device is full or lost, ToolError when a part of the ARM tools is missing.
    """
    located = tools.locate()
    libraries = [_library(located.arm64, name) for name in (_LOADER, *_LIBRARIES)]
    with proc.temporary_folder("edgepack-adb-") as scratch:
        here = Path(scratch)
        (here / "model").symlink_to(artifact.resolve())
        rows = [np.ascontiguousarray(values, "<i4").tobytes() for values in inputs.values()]
        (here / "inputs").write_bytes(b"".join(rows))
        words: list[str | Path] = [
            "push",
            *libraries,
            located.driver,
            here / "model",
            here / "inputs",
            f"{folder}/",
        ]
        done = _adb(phone, words, PUSH_S)
    if done.returncode:
        raise _cannot_write(phone, done.stdout.decode(errors="replace") + done.stderr_tail)


def _library(sysroot: Path, name: str) -> Path:
    folder = sysroot / tools.LIBRARY_FOLDER["arm64"]
    return folder / name if (folder / name).exists() else sysroot / "lib" / folder.name / name


def _cannot_write(phone: Phone, said: str) -> MeasureError:
    if "no space left" in said.lower():
        found = f"has no space left in {ROOM}"
        return MeasureError(phone.name, found, remedy="Free 20 MB there and measure again.")
    remedy = "Look at the phone and `adb devices`, then measure again."
    return MeasureError(phone.name, f"cannot be written to ({_last(said)})", remedy=remedy)


def drive(
    phone: Phone,
    folder: str,
    artifact: Path,
    inputs: Inputs,
    *,
    runs: int,
    deadline_s: float,
    watches_pages: bool = False,
) -> Timing:
    """Run the driver in `folder` on the device: each row of the inputs, then `runs` more going round them.

    Raises ConvertError for a model outside the contract, MeasureError when the runtime refuses it or dies or
    the connection is lost, LimitError after `deadline_s`.
    """
    rows = len(next(iter(inputs.values())))
    columns = [f"{name}:{values.shape[1]}" for name, values in inputs.items()]
    program = [f"./{_LOADER}", "--library-path", ".", "./driver", "--time", str(runs)]
    program += ["model", "inputs", "outputs", str(rows), str(int(watches_pages)), *columns]
    # The shell becomes the program, so that the number which it leaves is the program's own.
    inner = shlex.quote(f"echo $$ >pid; exec {shlex.join(program)}")
    command = f"cd {folder} && sh -c {inner} 2>&1; status=$?; rm -f pid; (exit $status)"
    where = f"{artifact.name} on {phone.name}"
    try:
        status, said = shell(phone, command, deadline_s=deadline_s)
    except LimitError as error:
        raise LimitError(where, error.found, allowed=error.allowed, remedy="It was stopped.") from error
    if status:
        raise _failure(where, status, said)
    return msgspec.json.decode(said[said.rindex("{") : said.rindex("}") + 1], type=Timing)


def _failure(where: str, status: int, said: str) -> ConvertError | MeasureError:
    last = _last(said).removeprefix("driver: ")
    if status == BROKEN_CONTRACT:
        contract = "the contract is int32 inputs [1, length] and one float32 output `scores` [1, items + 1]"
        return ConvertError(where, last, allowed=contract, remedy="Export the model with these.")
    remedy = "Drop this format for this device, or convert the model again."
    if status == 128 + signal.SIGILL:
        return MeasureError(where, "the runtime met an instruction that the core lacks", remedy=remedy)
    if status > 128:
        name = signal.Signals(status - 128).name
        return MeasureError(where, f"the runtime died with {name} (last words: {last})", remedy=remedy)
    refused = MeasureError(where, f"the runtime refused it ({last})", remedy=remedy)
    return lacking_operator(where, said) or refused


def scores(phone: Phone, folder: str, rows: int) -> NDArray[np.float32]:
    """Return what the driver left in `folder`, float32 [rows, V + 1].

    Raises MeasureError when the connection is lost.
    """
    with proc.temporary_folder("edgepack-adb-") as scratch:
        here = Path(scratch)
        done = _adb(phone, ["pull", f"{folder}/outputs", here / "outputs"], EXCHANGE_S)
        if done.returncode:
            raise _lost(phone, _last(done.stdout.decode(errors="replace") + done.stderr_tail))
        return np.fromfile(here / "outputs", "<f4").reshape(rows, -1)


def shell(phone: Phone, command: str, *, deadline_s: float) -> tuple[int, str]:
    """Run a command in the device's shell and return its status and what it wrote to stdout.

    Raises MeasureError when the connection is lost before the command's end, LimitError after `deadline_s`.
    """
    # adb's own status is 0 when the connection breaks, and on old devices always.
    done = _adb(phone, ["shell", f"{command}\necho {_STATUS}$?"], deadline_s)
    said = done.stdout.decode(errors="replace").replace("\r\n", "\n")
    text, found, status = said.rpartition(_STATUS)
    if not found or not status.strip().isdecimal():
        raise _lost(phone, _last(done.stderr_tail or said))
    return int(status), text


def _adb(phone: Phone, words: Sequence[str | Path], deadline_s: float) -> proc.Completed:
    return proc.run([phone.adb, "-s", phone.serial, *words], deadline_s=deadline_s)


def _lost(phone: Phone, last: str) -> MeasureError:
    found = f"the connection was lost ({last})"
    return MeasureError(phone.name, found, remedy="Check the cable and `adb devices`, then measure again.")


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("INFO:")]
    return (lines or ["it said nothing"])[-1].rstrip(".")
