"""`measure` and `explain`: what a model file of the serving contract costs on a target, and why."""

import zlib
from pathlib import Path

import msgspec

from edgepack.errors import ConfigError, ConvertError, MeasureError
from edgepack.latency.as_target import named_profiles
from edgepack.results import Attribution, Measurement, Number
from edgepack.runtimes import host
from edgepack.stages.attribution import attributed, core_of
from edgepack.stages.figures import measured
from edgepack.store import sha256_of
from edgepack.tools import Tell

_TFLITE = (".tflite",)
_SUFFIXES = {"onnxruntime-web": (".onnx", ".ort")}


def measure_file(model: Path, pattern: str, tell: Tell) -> Measurement:
    """Measure `model` on the target that `pattern` names: its bytes, and a full history's inference.

    The history holds the items 1, 2, 3 … up to the model's length. Raises ConfigError for an unknown
    target, ConvertError for a file that the target cannot run or that breaks the serving contract.
    """
    profile = named_profiles((pattern,))[0]
    _check_suffix(model, profile.name, _SUFFIXES.get(profile.runtime.name, _TFLITE))
    row = host.full_row(model)
    tell(f"measuring {model.name} on {profile.name}", 0, 0)
    return _with_sizes(measured(model, sha256_of(model), profile, row), model, profile.name)


def measure_on_device(model: Path, device: str, tell: Tell) -> Measurement:
    """Measure `model` on a real phone: its bytes, milliseconds, memory and scores.

    `device` is adb:SERIAL, or adb for the only phone that is connected. Raises ConvertError for a file that
    is no TFLite file or breaks the serving contract, ConfigError for another kind of device, and what
    `edgepack.measure.device.measure` raises.
    """
    from edgepack.measure import device as real

    kind, _, serial = device.partition(":")
    if kind != "adb":
        raise ConfigError(
            f"device '{device}'", "is not known", allowed="allowed is adb:SERIAL", remedy="See `adb devices`."
        )
    _check_suffix(model, "LiteRT", _TFLITE)
    inputs = host.full_row(model)
    found = real.measure(model, sha256_of(model), serial, inputs, tell)
    return _with_sizes(found, model, found.target)


def explain_file(model: Path, pattern: str, tell: Tell) -> tuple[str, Attribution]:
    """Return the name of the target that `pattern` names, and which operators of `model` cost what on it.

    Raises what `measure_file` does, ConfigError for a target whose operators cannot be counted one by one,
    and MeasureError for a model that does not run in parts.
    """
    profile = named_profiles((pattern,))[0]
    emulation = core_of(profile)
    _check_suffix(model, profile.name, _TFLITE)
    row = host.full_row(model)
    tell(f"counting the operators of {model.name} on {emulation.core}", 0, 0)
    whole = measured(model, sha256_of(model), profile, row)
    found = attributed(model, whole, emulation, row)
    if found.failure:
        raise MeasureError(model.name, found.failure.rstrip("."), remedy="Measure it as a whole instead.")
    return profile.name, found


def _with_sizes(found: Measurement, model: Path, target: str) -> Measurement:
    numbers = (*_sizes(model.read_bytes()), *found.numbers)
    return msgspec.structs.replace(found, target=target, numbers=numbers)


def _check_suffix(model: Path, runner: str, allowed: tuple[str, ...]) -> None:
    if model.suffix not in allowed:
        raise ConvertError(
            model.name,
            f"{runner} cannot run a {model.suffix or 'nameless'} file",
            allowed=f"it runs {' and '.join(allowed)}",
            remedy="Give such a file, or another target.",
        )


def _sizes(data: bytes) -> tuple[Number, ...]:
    sizes = {"model_bytes": len(data), "deflate_bytes": len(zlib.compress(data, 9))}
    return tuple(
        Number(name=name, value=value, provenance="computed", source="read off the file", exact=True)
        for name, value in sizes.items()
    )
