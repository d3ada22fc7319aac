"""Published rows joined with counts: what a device model is fitted to."""

import csv
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.calibrate.counts import Counted, Wanted
from edgepack.latency.devices import Device, calibration_folder, load_devices
from edgepack.latency.features import dtype, features, memory_bytes

_UNTIL = (("2023-04", "1.0.20221128"), ("2024-05", "1.0.20230816"), ("2025-09", "1.0.20240820"))
_NEWEST = "1.0.20260114"
_OLD = "2021"  # two years before the oldest version that is counted


class Row(NamedTuple):
    """One published latency with its features, float64 [len(FEATURES)], and the instructions counted.

    `memory_bytes` and `dtype` are those of its count (`latency.features`). `is_old` rows are of an ncnn whose
    kernels no counted version has: they tell about their own device only.
    """

    device: Device
    net: str
    avg_ms: float
    instructions: int
    features: NDArray[np.float64]
    is_old: bool = False
    memory_bytes: int = 0
    dtype: str = "float"

    @property
    def cycles(self) -> float:
        """Return what the latency is in cycles of the device's clock."""
        return self.avg_ms * self.device.clock_mhz * 1e3


def version_of(row_date: str) -> str:
    """Return the counted version of ncnn that is nearest to what stood behind a row of that date."""
    return next((version for until, version in _UNTIL if row_date < until), _NEWEST)


def version_of_device(name: str) -> str:
    """Return the counted version of ncnn that is nearest to the newest rows of a device."""
    dates = [line["row_date"] for line in _published() if line["device"] == name]
    return version_of(max(dates, default="9999"))


def _published() -> list[dict[str, str]]:
    with (calibration_folder() / "published.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(text for text in stream if not text.startswith("#")))


def wanted() -> set[Wanted]:
    """Return every count that a published AArch64 row asks for."""
    devices = load_devices()
    pairs = ((devices[line["device"]], line) for line in _published())
    return {
        Wanted(version_of(line["row_date"]), device.stream, line["net"])
        for device, line in pairs
        if device.isa == "aarch64"
    }


def joined(counted: Iterable[Counted]) -> list[Row]:
    """Return the AArch64 rows whose network was counted in the version and on the stream of their device."""
    devices = load_devices()
    regions = {(one.net, one.version, one.stream): one.region for one in counted}
    rows = []
    for line in _published():
        device = devices[line["device"]]
        region = regions.get((line["net"], version_of(line["row_date"]), device.stream))
        if device.isa == "aarch64" and region is not None:
            found = features(region, device)
            is_old = line["row_date"] < _OLD
            told = (region.instructions, found, is_old, memory_bytes(region), dtype(region))
            rows.append(Row(device, line["net"], float(line["avg_ms"]), *told))
    return rows
