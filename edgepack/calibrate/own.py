"""A device of one's own: a few runs on it, counted and put beside what its kin are known for."""

import csv
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgepack.calibrate.counts import DEADLINE_S, shape_of
from edgepack.calibrate.evaluate import PULL_OF_OWN_ROWS
from edgepack.calibrate.fit import drawn
from edgepack.calibrate.rows import Row, version_of_device
from edgepack.errors import ConfigError, DataError, did_you_mean
from edgepack.latency.devices import Device, load_devices
from edgepack.latency.features import FEATURES, HIERARCHIES, dtype, features, memory_bytes
from edgepack.latency.model import Calibrated, DeviceModel, OwnCalibrated, known_of
from edgepack.latency.streams import STREAMS
from edgepack.runtimes import arm, host, ncnn
from edgepack.runtimes.qemu import Region
from edgepack.store import write_atomic
from edgepack.tools import Tell
from edgepack.tools import arm as tools

_RUNTIMES = {".param": "ncnn", ".tflite": "litert"}
_CLOCKS_MHZ = (100, 6_000)
_UNLIKELY = 8.0
"""How many times off its kin a run cannot be."""
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


class Run(NamedTuple):
    """One run of one's own: a model file, what an inference took, and the input (w, h, channels) of a
    .param file."""

    file: Path
    ms: float
    shape: tuple[int, int, int]

    @property
    def runtime(self) -> str:
        """Return what runs such a file."""
        return _RUNTIMES[self.file.suffix]


def read_runs(path: Path, models: Path | None) -> list[Run]:
    """Read a CSV file with the columns `file`, `ms` and, for .param files, `input` (as 224x224x3).

    Files are looked for in `models`, else beside the CSV file; without `input` it is that of the published
    runs. Raises DataError for a line that cannot be used.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.DictReader(stream))
    except (UnicodeDecodeError, csv.Error) as error:
        remedy = "Write it as comma-separated text."
        raise DataError(str(path), f"is not a CSV file ({error})", remedy=remedy) from error
    if not lines or not {"file", "ms"} <= set(lines[0]):
        found = "has no runs" if not lines else f"has the columns {', '.join(map(str, lines[0]))}"
        remedy = "Write the heading `file,ms` and a line for each run."
        raise DataError(str(path), found, allowed="a run is a `file` and its `ms`", remedy=remedy)
    folder = models or path.parent
    runs = [_run(f"{path}, line {number}", line, folder) for number, line in enumerate(lines, 2)]
    runtimes = sorted({run.runtime for run in runs})
    if len(runtimes) > 1:
        found = f"has runs of {' and '.join(runtimes)}"
        raise DataError(str(path), found, remedy="Give those of one runtime, .param or .tflite files alone.")
    return runs


def _run(where: str, line: dict[str, str | None], folder: Path) -> Run:
    file, told = folder / (line["file"] or "").strip(), (line["ms"] or "").strip()
    if file.suffix not in _RUNTIMES or not file.is_file():
        found = f"'{file}' is not a file" if file.suffix in _RUNTIMES else f"'{file.name}' is not a model"
        remedy = "Give the folder of the models with --params, or correct the name."
        raise DataError(where, found, allowed=".param (ncnn) and .tflite files can be counted", remedy=remedy)
    try:
        ms = float(told)
    except ValueError:
        ms = float("nan")
    if not 0 < ms < float("inf"):
        raise DataError(where, f"ms is '{told}'", remedy="Write milliseconds of one inference, such as 12.5.")
    return Run(file, ms, _shape(where, (line.get("input") or "").strip(), file))


def _shape(where: str, told: str, file: Path) -> tuple[int, int, int]:
    if not told:
        return shape_of(file.stem)
    numbers = re.split(r"[x,]", told)
    if len(numbers) != 3 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise DataError(where, f"input is '{told}'", remedy="Write WIDTHxHEIGHTxCHANNELS, such as 224x224x3.")
    width, height, channels = map(int, numbers)
    return width, height, channels


def described(name: str, core: str, clock_mhz: int) -> Device:
    """Return a device with the facts that known devices with its core have.

    Raises ConfigError for a name that is taken or no name, a core that is not known, an unlikely clock.
    """
    devices = load_devices(None)
    if not _NAME.fullmatch(name) or name in devices:
        found = f"'{name}' is " + ("a known device" if name in devices else "no name of a file and a target")
        allowed = "lower-case letters, digits, hyphens and dots"
        raise ConfigError("the device's name", found, allowed=allowed, remedy="Choose another name.")
    low, high = _CLOCKS_MHZ
    if not low <= clock_mhz <= high:
        found = f"is {clock_mhz:,} MHz"
        remedy = "Give the clock of the core in MHz, such as 2400."
        raise ConfigError("the clock", found, allowed=f"likely are {low} to {high:,}", remedy=remedy)
    cores = {one.core.lower(): one for one in reversed(devices.values()) if one.isa == "aarch64"}
    like = cores.get(core.lower())
    if like is None:
        known = sorted({one.core for one in cores.values()})
        remedy = f"{did_you_mean(core, known)}Name the one that is nearest to yours."
        raise ConfigError(f"core '{core}'", "is not known", allowed=", ".join(known), remedy=remedy)
    source = {fact: f"assumed: as {like.name}" for fact in like.source}
    told = {"core": "told to `edgepack calibrate device`", "clock_mhz": "told to `edgepack calibrate device`"}
    return msgspec.structs.replace(
        like,
        name=name,
        board="",
        marketing="",
        description="a device of your own",
        clock_mhz=clock_mhz,
        source=source | told,
        rows=False,
    )


def counted(runs: list[Run], device: Device, tell: Tell) -> list[Row]:
    """Count every run on the device's kernel stream.

    Raises MeasureError, ConvertError, LimitError or ToolError as the runtimes do.
    """
    if runs[0].runtime == "ncnn":
        tools.fetch_ncnn(tell)
    rows = []
    for done, run in enumerate(runs):
        tell(f"counting {run.file.name} on {device.core}", done, len(runs))
        region = _of_ncnn(run, device) if run.runtime == "ncnn" else _of_litert(run.file, device)
        found = features(region, device)
        rest = (False, memory_bytes(region), dtype(region))
        rows.append(Row(device, run.file.stem, run.ms, region.instructions, found, *rest))
    return rows


def _of_ncnn(run: Run, device: Device) -> Region:
    version = version_of_device(device.name)
    core = STREAMS[device.stream]
    return ncnn.count(run.file, run.shape, core, HIERARCHIES, version, deadline_s=DEADLINE_S)


def _of_litert(model: Path, device: Device) -> Region:
    row, core = host.full_row(model), STREAMS[device.stream]
    *_, third = arm.regions(model, row, core, hierarchies=HIERARCHIES, deadline_s=DEADLINE_S)
    return third.behind_the_first()


def fitted(model: DeviceModel, device: Device, rows: list[Row], runtime: str) -> Calibrated:
    """Return what `rows` of its own and its kin tell of a device.

    The interval is as wide as leaving devices out showed it must be with so many rows of their own. Its kin
    are known by ncnn: for another runtime the width of a device never seen comes on top, and the range is
    that of the rows, half as small to twice as large. Raises DataError for a run that no such core can have.
    """
    kin = known_of(model, device)
    assert model.transfer is not None  # noqa: S101  `known_of` raises without
    _check_likely(kin, rows)
    weights = drawn(rows, np.array(kin.weights), PULL_OF_OWN_ROWS)
    widths = model.transfer.by_own_rows
    width = widths[max(known for known in widths if known <= len(rows))]
    own = (min(row.instructions for row in rows), max(row.instructions for row in rows))
    memory = max(row.memory_bytes for row in rows)
    is_same = runtime == model.runtime
    width += 0.0 if is_same else kin.width
    return Calibrated(
        weights=tuple(float(f"{weight:.5g}") for weight in weights),
        width=round(width, 6),
        widest=round(kin.widest - kin.width + width, 6),
        rows=0,
        own_runs=len(rows),
        runtime=runtime,
        least=min(own[0], kin.least) if is_same else own[0] // 2,
        most=max(own[1], kin.most) if is_same else own[1] * 2,
        most_memory_bytes=max(memory, kin.most_memory_bytes or 0) if is_same else memory * 2,
        dtypes=kin.dtypes if is_same else tuple(sorted({row.dtype for row in rows})),
    )


def _check_likely(kin: Calibrated, rows: list[Row]) -> None:
    for row in rows:
        likely_ms = row.features @ kin.weights / (row.device.clock_mhz * 1e3)
        if not 1 / _UNLIKELY < row.avg_ms / likely_ms < _UNLIKELY:
            found = (
                f"takes {row.avg_ms:g} ms, where a {row.device.core} at this clock takes some {likely_ms:.3g}"
            )
            remedy = "Check the unit (ms), the file, the input, the clock, and that one thread ran."
            raise DataError(row.net, found, remedy=remedy)


def write(folder: Path, device: Device, known: Calibrated) -> tuple[Path, Path]:
    """Write NAME.toml (a device, as in devices.toml) and NAME.json (what was learnt of it) into `folder`."""
    facts: dict[str, Any] = msgspec.to_builtins(device)
    source = facts.pop("source")
    lines = ["[[device]]", *(f"{key} = {json.dumps(value)}" for key, value in facts.items())]
    lines += ["", "[device.source]", *(f"{key} = {json.dumps(value)}" for key, value in source.items())]
    paths = folder / f"{device.name}.toml", folder / f"{device.name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    learnt = msgspec.json.encode(OwnCalibrated(features=FEATURES, known=known))
    write_atomic(paths[0], ("\n".join(lines) + "\n").encode())
    write_atomic(paths[1], msgspec.json.format(learnt, indent=1) + b"\n")
    return paths
