"""Takes a user's own model in: a Keras file, a SavedModel or a Python file with `build()`.

What Keras 2 can open as layers can be trained on, pruned and quantized with training. The rest (a
Keras 3 file, a SavedModel) becomes a Keras 2 model of a single layer, which can be converted and
quantized after training; `why_not_trained_further` tells the report so.
"""

import hashlib
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgepack.errors import ConvertError
from edgepack.store import digest_of, sha256_of

if TYPE_CHECKING:
    from edgepack.models.graphs import Graphs

_CONTRACT = "it must map one int32 input [batch, length] to one float32 output [batch, items + 1]"


class Taken(NamedTuple):
    """What a path holds. `kind` is "python", "keras2", "keras3" or "saved-model"; `sha256` its content's.

    `comes_trained`: its weights are in the file. `why_not_trained_further` is "" when they may be changed.
    """

    kind: str
    sha256: str
    comes_trained: bool
    why_not_trained_further: str


def describe(path: Path) -> Taken:
    """Return what `path` holds; loads neither TensorFlow nor Keras.

    Raises ConvertError when it is nothing that can be taken in.
    """
    if path.is_dir() and (path / "saved_model.pb").is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        digest = digest_of([[str(file.relative_to(path)), sha256_of(file)] for file in files])
        return Taken("saved-model", digest, True, "a SavedModel no longer has layers")
    if not path.is_file():
        raise _not_a_model(path, "there is no such file or SavedModel folder")
    if path.suffix == ".py":
        return Taken("python", sha256_of(path), False, "")
    version = _VERSIONS[path.suffix](path) if path.suffix in _VERSIONS else None
    if version is None:
        raise _not_a_model(path, f"'{path.suffix}' is no format of a Keras model")
    if version.startswith("2"):
        return Taken("keras2", sha256_of(path), True, "")
    return Taken(
        "keras3", sha256_of(path), True, f"it was saved by Keras {version}, TF-MOT knows Keras 2 only"
    )


def graphs(path: Path, *, item_count: int, length: int) -> "Graphs":
    """Return the user's model for V = `item_count` items and histories of `length`.

    A Python file's `build(item_count, length)` gives a Keras 2 model or Graphs, untrained; everything
    else comes with its weights, as Graphs(model, model, "", None).

    Raises ConvertError when it cannot be opened or breaks the serving contract.
    """
    from edgepack.models.graphs import Graphs

    kind = describe(path).kind
    made = _built(path, item_count, length) if kind == "python" else _OPENED[kind](path, length)
    if not isinstance(made, Graphs):
        made = Graphs(made, made, "", None)
    _check(path, made.serving, item_count, length)
    return made


def _keras_version(path: Path) -> str | None:
    """Return the Keras version in a .keras archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (zipfile.BadZipFile, KeyError, ValueError):
        return None


def _hdf5_version(path: Path) -> str | None:
    """Return the Keras version in an HDF5 file that holds a whole model."""
    import h5py  # type: ignore[import-untyped]

    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs["keras_version"]) if "model_config" in file.attrs else None
    except (OSError, KeyError):
        return None


_VERSIONS = {".keras": _keras_version, ".h5": _hdf5_version, ".hdf5": _hdf5_version}


def _built(path: Path, item_count: int, length: int) -> Any:
    name = f"edgepack_own_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # noqa: S101  always so for a .py file
    # Sets the Keras 2 switch before the file's own `import tensorflow`.
    from edgepack.keras2 import keras
    from edgepack.models.graphs import Graphs

    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = module.build(item_count, length)
    except (AttributeError, ImportError, NameError, SyntaxError, TypeError, ValueError) as error:
        raise ConvertError(
            str(path),
            f"its build(item_count, length) failed: {_first_line(error)}",
            remedy="Let `build` return a Keras 2 model made with edgepack.keras2.keras.",
        ) from error
    if not isinstance(made, keras.Model | Graphs):
        kind = type(made)
        raise ConvertError(
            str(path),
            f"build() returned a {kind.__module__}.{kind.__name__}",
            allowed="it must be a Keras 2 model",
            remedy="Import keras with `from edgepack.keras2 import keras`.",
        )
    return made


def _open_keras2(path: Path, length: int) -> Any:
    from edgepack.keras2 import keras

    try:
        return keras.models.load_model(path, compile=False)
    except (OSError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def _open_foreign(path: Path, length: int) -> Any:
    from edgepack.convert.foreign import ForeignModel
    from edgepack.keras2 import keras

    history = keras.Input((length,), dtype="int32", name="history")
    try:
        return keras.Model(history, ForeignModel(str(path), name="foreign")(history), name=path.stem)
    except (OSError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


_OPENED = {"keras2": _open_keras2, "keras3": _open_foreign, "saved-model": _open_foreign}


def _check(path: Path, serving: Any, item_count: int, length: int) -> None:
    found = [f"{t.dtype.name} {list(t.shape)}" for t in (*serving.inputs, *serving.outputs)]
    inputs, outputs = serving.inputs, serving.outputs
    if len(inputs) != 1 or len(outputs) != 1 or len(inputs[0].shape) != 2 or len(outputs[0].shape) != 2:
        raise _breaks_contract(path, f"it has the inputs and outputs {', '.join(found)}")
    if inputs[0].shape[1] not in (None, length):
        raise _breaks_contract(path, f"it reads {inputs[0].shape[1]} items and history_length is {length}")
    if outputs[0].shape[1] != item_count + 1:
        scored = outputs[0].shape[1]
        raise _breaks_contract(path, f"it scores {scored} items and the log needs {item_count} + 1")


def _breaks_contract(path: Path, found: str) -> ConvertError:
    return ConvertError(
        str(path), found, allowed=_CONTRACT, remedy="Export the model with this signature, ids 0..items."
    )


def _not_a_model(path: Path, found: str) -> ConvertError:
    return ConvertError(
        str(path),
        found,
        allowed="a .keras or .h5 file with the whole model, a SavedModel folder, or a .py file with build()",
        remedy="Give one of these as model.file.",
    )


def _unreadable(path: Path, error: Exception) -> ConvertError:
    return ConvertError(
        str(path),
        f"cannot be opened: {_first_line(error)}",
        remedy="If it has classes of its own, give a .py file whose build() makes it and loads its weights.",
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
