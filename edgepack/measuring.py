"""`measure`: what any model file of the serving contract costs on a target."""

import zlib
from pathlib import Path

import msgspec
import numpy as np

from edgepack.errors import ConvertError
from edgepack.latency.as_target import named_profiles
from edgepack.profiles import Profile
from edgepack.results import Measurement, Number
from edgepack.stages.figures import measured
from edgepack.store import sha256_of
from edgepack.tools import Tell

_SUFFIXES = {"web-wasm": (".onnx", ".ort")}


def measure_file(model: Path, pattern: str, tell: Tell) -> Measurement:
    """Measure `model` on the target that `pattern` names: its bytes, and a full history's inference.

    The history holds the items 1, 2, 3 … up to the model's length. Raises ConfigError for an unknown
    target, ConvertError for a file that the target cannot run or that breaks the serving contract.
    """
    from edgepack.runtimes import host

    profile = named_profiles((pattern,))[0]
    _check_suffix(model, profile)
    signature = host.signature(model)
    if [t.name for t in signature.inputs] != ["history"] or len(signature.outputs) != 1:
        names = ", ".join(t.name for t in (*signature.inputs, *signature.outputs))
        raise ConvertError(
            model.name,
            f"has the inputs and outputs {names}",
            allowed="the contract is `history` int32 [1, L] in, `scores` float32 [1, V + 1] out",
            remedy="Export the model with these.",
        )
    (length, width) = (int(signature.inputs[0].shape[-1]), int(signature.outputs[0].shape[-1]))
    row = (np.arange(length, dtype=np.int32) % (width - 1) + 1)[None, :]
    tell(f"measuring {model.name} on {profile.name}", 0, 0)
    sha256 = sha256_of(model)
    found = measured(model, sha256, profile, row)
    return msgspec.structs.replace(
        found, target=profile.name, numbers=(*_sizes(model.read_bytes()), *found.numbers)
    )


def _check_suffix(model: Path, profile: Profile) -> None:
    allowed = _SUFFIXES.get(profile.platform, (".tflite",))
    if model.suffix not in allowed:
        raise ConvertError(
            model.name,
            f"{profile.name} cannot run a {model.suffix or 'nameless'} file",
            allowed=f"it runs {' and '.join(allowed)}",
            remedy="Give such a file, or another target.",
        )


def _sizes(data: bytes) -> tuple[Number, ...]:
    sizes = {"model_bytes": len(data), "deflate_bytes": len(zlib.compress(data, 9))}
    return tuple(
        Number(name=name, value=value, provenance="computed", source="read off the file", exact=True)
        for name, value in sizes.items()
    )
