"""The frozen device model: cycles a unit of each feature, how wide the interval is, where it is valid."""

import math

import msgspec

from edgepack.errors import ConfigError
from edgepack.latency.devices import Device, calibration_folder
from edgepack.latency.features import FEATURES, features
from edgepack.runtimes.qemu import Region


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt of one device.

    `weights` are cycles a unit of each of FEATURES. An interval reaches from the prediction / e^`width` to
    the prediction x e^`width`, the bracket of a model outside of the calibrated range of instructions by
    `widest`. `rows` published latencies of networks with `least` to `most` instructions stand behind it.
    """

    weights: tuple[float, ...]
    width: float
    widest: float
    rows: int
    least: int
    most: int


class DeviceModel(msgspec.Struct, frozen=True, kw_only=True):
    """Every calibrated device by name; `runtime` is what the published latencies were measured with."""

    source: str
    features: tuple[str, ...]
    runtime: str
    coverage: float
    devices: dict[str, Calibrated]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Modelled milliseconds of one inference: `value_ms` is None outside of the calibrated range."""

    device: str
    value_ms: float | None
    low_ms: float
    high_ms: float
    provenance: str
    note: str


def load_model() -> DeviceModel:
    """Return the model that comes along. Raises ConfigError when it does not fit this version's features."""
    path = calibration_folder() / "model.json"
    model = msgspec.json.decode(path.read_bytes(), type=DeviceModel)
    if model.features != FEATURES:
        raise ConfigError(
            str(path), "was fitted to other features", remedy="Run `edgepack calibrate`, which fits anew."
        )
    return model


def predict(model: DeviceModel, device: Device, region: Region) -> Latency:
    """Return the latency of a count made with HIERARCHIES on the device's kernel stream.

    Raises ConfigError for a device without published rows.
    """
    known = model.devices.get(device.name)
    if known is None:
        raise ConfigError(
            f"device '{device.name}'",
            "has no published latency to calibrate by",
            allowed=f"calibrated are {', '.join(sorted(model.devices))}",
            remedy="Name the one that is nearest to it.",
        )
    cycles = float(features(region, device) @ known.weights)
    value_ms = cycles / (device.clock_mhz * 1e3)
    inside = known.least <= region.instructions <= known.most
    width = math.exp(known.width if inside else known.widest)
    covered = f"{model.coverage:.0%} interval, {known.rows} published rows of {model.runtime}"
    outside = (
        f"outside calibration: {region.instructions:,} instructions, calibrated are "
        f"{known.least:,} to {known.most:,}; a bracket, not an estimate"
    )
    return Latency(
        device=device.name,
        value_ms=value_ms if inside else None,
        low_ms=value_ms / width,
        high_ms=value_ms * width,
        provenance="modelled",
        note=covered if inside else outside,
    )
