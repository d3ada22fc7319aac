"""The models that edgepack.toml names: what ships and its teacher, a family of ours or the user's own."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgepack.config import ModelConfig
from edgepack.errors import ConfigError, ConvertError, did_you_mean
from edgepack.profiles import convert_table
from edgepack.stages import Place
from edgepack.store import sha256_of, source_fingerprint
from edgepack.train.settings import Distillation

if TYPE_CHECKING:
    from edgepack.models.graphs import Graphs


_NO_FAMILIES = {"__init__", "graphs", "folding", "norms"}
"""The modules in models/ that families are made with."""


class Model(NamedTuple):
    """What is packed, or its teacher. `identity` is JSON that tells it from any other.

    `build` makes its untrained graphs; `training` is how to train it, read from `table` of edgepack.toml.
    `why_not_trained_further` says why a user's model can only be quantized after training ("" if not so).
    `onnx` is the file of a model that came as ONNX; it has no Keras graphs, and `build` is never called.
    """

    name: str
    identity: dict[str, Any]
    build: "Callable[[], Graphs]"
    training: dict[str, Any]
    table: str
    comes_trained: bool = False
    why_not_trained_further: str = ""
    onnx: Path | None = None

    @property
    def length(self) -> int:
        """L, how many items of a history it reads."""
        return int(self.identity["length"])


def model(place: Place, item_count: int) -> Model:
    """Return the configured model for V = `item_count`. Raises ConfigError or ConvertError if it is wrong."""
    return _model(place, place.config.model, item_count, place.config.training, "model")


def teacher(place: Place, item_count: int) -> Model | None:
    """Return the configured teacher for V = `item_count`, None without one. Raises as `model` does."""
    config = place.config.teacher
    if config is None:
        return None
    distillation(place)  # so that a wrong key shows before the teacher has been trained
    found = _model(place, config, item_count, config.training, "teacher")
    if found.onnx is not None:
        raise ConfigError(
            f"teacher.file '{config.file}'",
            "is an ONNX file, which training cannot ask",
            allowed="a teacher is a family, a Keras file, a SavedModel or a .py file with build()",
            remedy="Give the Keras model that the file was exported from.",
        )
    if reason := why_no_student(model(place, item_count)):
        raise ConfigError(
            f"[teacher] of '{place.config.model.family or place.config.model.file}'",
            f"the model cannot be a student: {reason}",
            allowed="sasrec, gru4rec, mf, neumf and models of your own that read a history alone",
            remedy="Choose another family for [model], or take [teacher] and the recipes `distil-…` out.",
        )
    return found


def why_no_student(model: Model) -> str:
    """Return why `model` can learn from no teacher, "" when its inputs allow it."""
    from edgepack.train import distil

    return "" if model.onnx is not None else distil.why_not_asked(model.build())


def distillation(place: Place) -> Distillation:
    """Return how a student listens to its teacher. Raises ConfigError for a key or value that is wrong."""
    return convert_table({**place.config.distillation}, Distillation, "edgepack.toml: distillation")


def _model(place: Place, config: ModelConfig, item_count: int, training: dict[str, Any], table: str) -> Model:
    length = config.history_length
    if config.file is not None:
        return _own_model((place.folder / config.file).resolve(), item_count, length, training, table)
    family = str(config.family)
    _known_family(family, table)
    identity = {
        "family": family,
        "hyper": config.hyper,
        "length": length,
        "items": item_count,
        "code": source_fingerprint("models"),
    }
    search = search_sizes(config)
    identity |= search

    def build() -> "Graphs":
        from importlib import import_module

        from edgepack.keras2 import deterministic

        deterministic(place.config.seed)
        module = import_module(f"edgepack.models.{family}")
        graphs: Graphs = module.build(item_count, length, **search, **config.hyper)
        return graphs

    return Model(family, identity, build, training, table)


def search_sizes(config: ModelConfig) -> dict[str, int]:
    """Return what a search model is built with beside its history, nothing for other models."""
    if not config.query_length:
        return {}
    return {"query_length": config.query_length, "query_buckets": config.query_buckets}


def families() -> tuple[str, ...]:
    """Return the names of the families that can be built, sorted."""
    beside = Path(__file__).parents[1] / "models"
    folder = beside if beside.is_dir() else Path(__file__).parents[2] / "models"
    return tuple(sorted(p.stem for p in folder.glob("*.py") if p.stem not in _NO_FAMILIES))


def _known_family(family: str, table: str) -> None:
    known = families()
    if family not in known:
        raise ConfigError(
            f"{table}.family '{family}'",
            "no such family",
            allowed=f"known are {', '.join(known)}",
            remedy=f"{did_you_mean(family, list(known))}Name one, or give your own as {table}.file.",
        )


def _own_model(path: Path, item_count: int, length: int, training: dict[str, Any], table: str) -> Model:
    from edgepack.convert import intake

    identity = {"length": length, "items": item_count, "code": source_fingerprint("convert", "models")}
    if path.suffix == ".onnx" and path.is_file():
        return Model(
            path.name,
            identity | {"sha256": sha256_of(path)},
            _no_graphs,
            training,
            table,
            comes_trained=True,
            why_not_trained_further="it came as ONNX, which holds no training graph",
            onnx=path,
        )
    taken = intake.describe(path)
    identity |= {"sha256": taken.sha256}

    def build() -> "Graphs":
        return intake.graphs(path, item_count=item_count, length=length)

    trained, why_not = taken.comes_trained, taken.why_not_trained_further
    return Model(path.name, identity, build, training, table, trained, why_not)


def _no_graphs() -> "Graphs":
    raise ConvertError("an ONNX model", "has no Keras graphs", remedy="Report this as a bug.")


def onnx_source(model: Model) -> Any:
    """Return a model that came as ONNX, brought to the serving contract.

    Raises ConvertError when it cannot be.
    """
    from edgepack.convert import from_onnx

    if model.onnx is None:
        raise ConvertError(model.name, "did not come as ONNX", remedy="Report this as a bug.")
    return from_onnx.take_in(model.onnx, item_count=model.identity["items"], length=model.length)
