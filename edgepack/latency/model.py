"""The frozen device model: cycles a unit of each feature, how wide the interval is, where it is valid."""

import math
from collections.abc import Container, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack.errors import ConfigError
from edgepack.latency.devices import OWN, Device, calibration_folder, load_devices, own_devices
from edgepack.latency.features import FEATURES, dtype, features, memory_bytes
from edgepack.runtimes.qemu import Region

RUNTIME = "ncnn"
"""What the published latencies were measured with."""


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt of one device.

    `weights` are cycles a unit of each of FEATURES. `without` are the weights that each lack one fold of the
    networks, `errors` how far those err on that fold, as absolute logarithms: the interval is made of both.
    Where there are none, it reaches from the prediction / e^`width` to the prediction x e^`width`; the
    bracket outside of the calibrated range by `widest`. `rows` published latencies of networks with `least`
    to `most` instructions, up to `most_memory_bytes` from memory (None: not known), in `dtypes`, stand behind
    it. `is_old`: their kernels are older than any that was counted, so that they tell of this device only.
    `own_runs` of `runtime` are what somebody added of a device at hand.
    """

    weights: tuple[float, ...]
    width: float
    widest: float
    rows: int
    least: int
    most: int
    most_memory_bytes: int | None = None
    dtypes: tuple[str, ...] = ("float", "int8")
    is_old: bool = False
    own_runs: int = 0
    runtime: str = RUNTIME
    without: tuple[tuple[float, ...], ...] = ()
    errors: tuple[tuple[float, ...], ...] = ()


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Half widths of intervals, as logarithms, for a device without rows of its own: measured by leaving
    devices (and networks) out. `by_own_rows` is the same for a device with that many rows of its own."""

    same_core: float
    same_kind: float
    by_own_rows: dict[int, float]


class DeviceModel(msgspec.Struct, frozen=True, kw_only=True):
    """Every calibrated device by name; `runtime` is what the published latencies were measured with."""

    source: str
    features: tuple[str, ...]
    runtime: str
    coverage: float
    devices: dict[str, Calibrated]
    transfer: Transfer | None = None


class OwnCalibrated(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt of a device of one's own, in a file beside the device's."""

    features: tuple[str, ...]
    known: Calibrated


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Modelled milliseconds of one inference: `value_ms` is None outside of the calibrated range.

    `note` says what the interval is and what the model's error; `how` more of how it was made.
    """

    device: str
    value_ms: float | None
    low_ms: float
    high_ms: float
    provenance: str
    note: str
    how: str = ""


class Cycles(msgspec.Struct, frozen=True):
    """A prediction in cycles, with its interval."""

    value: float
    low: float
    high: float


def load_model(own: Path | None = OWN) -> DeviceModel:
    """Return the model that comes along, and what the folder `own` holds of devices of one's own.

    Raises ConfigError for a file that does not fit this version's features.
    """
    path = calibration_folder() / "model.json"
    model = msgspec.json.decode(path.read_bytes(), type=DeviceModel)
    _check_features(path, model.features, "Run `edgepack calibrate`, which fits anew.")
    paths = {name: own / f"{name}.json" for name in own_devices(own)} if own is not None else {}
    learnt = {name: _own(path) for name, path in paths.items() if path.is_file()}
    return msgspec.structs.replace(model, devices=model.devices | learnt)


def _own(path: Path) -> Calibrated:
    remedy = "Run `edgepack calibrate device` again."
    try:
        learnt = msgspec.json.decode(path.read_bytes(), type=OwnCalibrated)
    except msgspec.DecodeError as error:
        raise ConfigError(str(path), f"is nothing learnt of a device ({error})", remedy=remedy) from error
    _check_features(path, learnt.features, remedy)
    return learnt.known


def _check_features(path: Path, found: tuple[str, ...], remedy: str) -> None:
    if found != FEATURES:
        raise ConfigError(str(path), "was fitted to other features", remedy=remedy)


def predict(model: DeviceModel, device: Device, region: Region, runtime: str = RUNTIME) -> Latency:
    """Return the latency of a count made with HIERARCHIES on the device's kernel stream, in `runtime`.

    A device without rows gets what its core's, else its kind's, devices have in common, with the interval
    that such a guess asks for. Raises ConfigError when there is none such.
    """
    known = known_of(model, device)
    khz = device.clock_mhz * 1e3
    found = cycles(known, features(region, device), model.coverage)
    reasons = _outside(known, region, runtime)
    if not reasons:
        return Latency(
            device=device.name,
            value_ms=found.value / khz,
            low_ms=found.low / khz,
            high_ms=found.high / khz,
            provenance="modelled",
            note=f"{model.coverage * 100:.0f} % interval, {_behind(known)} {known.runtime}{_error(known)}",
        )
    width = math.exp(known.widest)
    return Latency(
        device=device.name,
        value_ms=None,
        low_ms=found.value / width / khz,
        high_ms=found.value * width / khz,
        provenance="modelled",
        note=f"outside calibration: {', '.join(reasons)}; a bracket, not an estimate",
    )


def cycles(known: Calibrated, found: NDArray[np.float64], coverage: float) -> Cycles:
    """Return the cycles of `found`, float64 [len(FEATURES)], with an interval.

    The interval is CV+ (Barber, Candes, Ramdas and Tibshirani, Predictive inference with the jackknife+,
    Annals of Statistics 49, 2021, section 3) in logarithms, with folds of whole networks. Within a device
    each network is one row, so that for networks drawn alike it covers at least `promised` whatever the
    distribution, and near `coverage` in practice.
    """
    # MAPIE has CV+ around scikit-learn's estimators; here a prediction needs nothing but the frozen numbers.
    value = float(found @ known.weights)
    if not known.without:
        width = math.exp(known.width)
        return Cycles(value, value / width, value * width)
    centres = [math.log(float(found @ weights)) for weights in known.without]
    pairs = [(at, e) for at, errors in zip(centres, known.errors, strict=True) for e in errors]
    place = rank(len(pairs), coverage)
    low = sorted(at - error for at, error in pairs)[-1 - place]
    high = sorted(at + error for at, error in pairs)[place]
    return Cycles(value, min(value, math.exp(low)), max(value, math.exp(high)))


def promised(folds: int, rows: int, coverage: float) -> float:
    """Return what CV+ covers at least (theorem 4 there): of it that much is certain, not likely."""
    lost = min(2 * (1 - 1 / folds) / (rows / folds + 1), (1 - folds / rows) / (folds + 1))
    return 1 - 2 * (1 - coverage) - lost


def rank(scores: int, coverage: float) -> int:
    """Return which of that many sorted scores bounds a further one with probability `coverage`, from 0 on."""
    return min(math.ceil(coverage * (scores + 1)), scores) - 1


def known_of(model: DeviceModel, device: Device) -> Calibrated:
    """Return what is known of a device: its own, or what those of its core or kind have in common.

    Raises ConfigError for a 32-bit device without rows, and where no device of its kind is calibrated.
    """
    if device.name in model.devices:
        return model.devices[device.name]
    kin = _kin(model, device) if device.isa == "aarch64" else ()
    if not kin or model.transfer is None:
        raise ConfigError(
            f"device '{device.name}'",
            "has no published latency to calibrate by, nor has a device of its kind",
            allowed=f"calibrated are {', '.join(sorted(model.devices))}",
            remedy="Name the one that is nearest to it.",
        )
    same = all(one.core == device.core for one in kin)
    width = model.transfer.same_core if same else model.transfer.same_kind
    return common([model.devices[one.name] for one in kin], width)


def _kin(model: DeviceModel, device: Device) -> tuple[Device, ...]:
    devices = load_devices(None)
    old = {name for name, known in model.devices.items() if known.is_old}
    return alike(device, [devices[name] for name in sorted(model.devices) if name in devices], old)


def alike(device: Device, known: Iterable[Device], old: Container[str]) -> tuple[Device, ...]:
    """Return which of the `known` devices speak for another one: those with its core, else those of its kind;
    of these the ones with `old` rows only where there are no others."""
    kind = [other for other in known if other.kind == device.kind and other.name != device.name]
    several = [other for other in kind if other.core == device.core] or kind
    return tuple(other for other in several if other.name not in old) or tuple(several)


def common(several: Sequence[Calibrated], width: float) -> Calibrated:
    """Return what devices have in common: the mean of their weights, the whole of their ranges."""
    memory = [known.most_memory_bytes for known in several if known.most_memory_bytes is not None]
    return Calibrated(
        weights=tuple(np.mean([known.weights for known in several], axis=0).tolist()),
        width=width,
        widest=width + max(known.widest for known in several),
        rows=0,
        least=min(known.least for known in several),
        most=max(known.most for known in several),
        most_memory_bytes=max(memory, default=None),
        dtypes=tuple(sorted({dtype for known in several for dtype in known.dtypes})),
    )


def _behind(known: Calibrated) -> str:
    if known.own_runs:
        return f"own runs ({known.own_runs}) and published rows of its kin, in"
    if not known.rows:
        return "published rows of its kin, none of its own, of"
    return f"{known.rows} published rows of"


def _error(known: Calibrated) -> str:
    """Return how far the device's fits err on networks that they lack, where that is known."""
    errors = sorted(error for fold in known.errors for error in fold)
    if not errors:
        return ""
    return f", median error {math.expm1(errors[len(errors) // 2]) * 100:.1f} % on networks left out"


def _outside(known: Calibrated, region: Region, runtime: str) -> list[str]:
    """Return in what a count leaves the calibrated range."""
    reasons = []
    if not known.least <= region.instructions <= known.most:
        calibrated = f"calibrated {known.least / 1e6:.3g} to {known.most / 1e6:,.0f} M"
        reasons.append(f"{region.instructions / 1e6:.3g} M instructions, {calibrated}")
    if known.most_memory_bytes is not None and memory_bytes(region) > known.most_memory_bytes:
        fetched = f"{memory_bytes(region):,} bytes from memory"
        reasons.append(f"{fetched}, calibrated are up to {known.most_memory_bytes:,}")
    if dtype(region) not in known.dtypes:
        reasons.append(f"computes in {dtype(region)}, calibrated is {' and '.join(known.dtypes)}")
    if runtime != known.runtime:
        reasons.append(f"runs in {runtime}, calibrated is {known.runtime}")
    return reasons
