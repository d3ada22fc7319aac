"""Stub, replaced at merge."""

import math

from edgepack.latency.devices import Device
from edgepack.latency.features import features
from edgepack.latency.model import DeviceModel, Latency
from edgepack.runtimes.qemu import Region


def predict(model: DeviceModel, device: Device, warm: Region, cold: Region, *, integer: bool) -> Latency:
    """Return a bracket."""
    known = model.devices[device.name]
    low, high = (float(features(r, device) @ known.weights) / (device.clock_mhz * 1e3) for r in (warm, cold))
    width = math.exp(known.width)
    return Latency(
        device=device.name,
        value_ms=None,
        low_ms=low / width,
        high_ms=high * width,
        provenance="modelled",
        note="outside calibration: stub",
    )


def predict_armv7(model: DeviceModel, device: Device, warm: Region, cold: Region) -> Latency:
    """Return a bracket."""
    low, high = (r.instructions / (device.clock_mhz * 1e3) for r in (warm, cold))
    return Latency(
        device=device.name,
        value_ms=None,
        low_ms=low / 2,
        high_ms=high * 2,
        provenance="modelled",
        note="outside calibration: stub",
    )
