"""Split -> float weights -> the weights of each recipe, for our families and for a user's own model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgepack.errors import ConfigError, ConvertError, did_you_mean
from edgepack.profiles import convert_table
from edgepack.stages import Place, versions
from edgepack.stages.logs import calibration, parity_histories
from edgepack.store import Kept, sha256_of, source_fingerprint, write_atomic
from edgepack.tools import Tell

if TYPE_CHECKING:
    from edgepack.models.graphs import Graphs


class Model(NamedTuple):
    """What is packed. `identity` is JSON that tells it from any other; `build` makes its untrained graphs.

    `why_not_trained_further` says why a user's model can only be quantized after training ("" if not so).
    `onnx` is the file of a model that came as ONNX; it has no Keras graphs, and `build` is never called.
    """

    name: str
    identity: dict[str, Any]
    build: "Callable[[], Graphs]"
    comes_trained: bool = False
    why_not_trained_further: str = ""
    onnx: Path | None = None


def model(place: Place, item_count: int) -> Model:
    """Return the configured model for V = `item_count`. Raises ConfigError or ConvertError if it is wrong."""
    config, length = place.config.model, place.config.model.history_length
    if config.file is not None:
        return _own_model((place.folder / config.file).resolve(), item_count, length)
    family = str(config.family)
    _known_family(family)
    identity = {
        "family": family,
        "hyper": config.hyper,
        "length": length,
        "items": item_count,
        "code": source_fingerprint("models"),
    }

    def build() -> "Graphs":
        from importlib import import_module

        from edgepack.keras2 import deterministic

        deterministic(place.config.seed)
        module = import_module(f"edgepack.models.{family}")
        graphs: Graphs = module.build(item_count, length, **config.hyper)
        return graphs

    return Model(family, identity, build)


def _known_family(family: str) -> None:
    beside = Path(__file__).parents[1] / "models"
    folder = beside if beside.is_dir() else Path(__file__).parents[2] / "models"
    known = sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "graphs"))
    if family not in known:
        raise ConfigError(
            f"model.family '{family}'",
            "no such family",
            allowed=f"known are {', '.join(known)}",
            remedy=f"{did_you_mean(family, known)}Name one, or give your own as model.file.",
        )


def _own_model(path: Path, item_count: int, length: int) -> Model:
    from edgepack.convert import intake

    identity = {"length": length, "items": item_count, "code": source_fingerprint("convert", "models")}
    if path.suffix == ".onnx" and path.is_file():
        return Model(
            path.name,
            identity | {"sha256": sha256_of(path)},
            _no_graphs,
            comes_trained=True,
            why_not_trained_further="it came as ONNX, which holds no training graph",
            onnx=path,
        )
    taken = intake.describe(path)
    identity |= {"sha256": taken.sha256}

    def build() -> "Graphs":
        return intake.graphs(path, item_count=item_count, length=length)

    return Model(path.name, identity, build, taken.comes_trained, taken.why_not_trained_further)


def _no_graphs() -> "Graphs":
    raise ConvertError("an ONNX model", "has no Keras graphs", remedy="Report this as a bug.")


def onnx_source(place: Place, model: Model) -> Any:
    """Return a model that came as ONNX, brought to the serving contract.

    Raises ConvertError when it cannot be.
    """
    from edgepack.convert import from_onnx

    if model.onnx is None:
        raise ConvertError(model.name, "did not come as ONNX", remedy="Report this as a bug.")
    length = place.config.model.history_length
    return from_onnx.take_in(model.onnx, item_count=model.identity["items"], length=length)


def train(place: Place, split: Kept, model: Model, seed: int) -> Kept:
    """Train the float model: `weights.npz` (of the training graph) and `curve.json`."""
    inputs = {
        "split": split.digest,
        "model": model.identity,
        "training": [place.config.training, place.config.quality.filter_seen],
        "seed": seed,
        "code": source_fingerprint("train", "models", "keras2.py"),
        "versions": versions("tensorflow", "tf_keras", "numpy"),
    }

    def make(folder: Path) -> None:
        from edgepack.compress.weights import save_weights

        records: list[dict[str, float]] = []
        if model.onnx is None:
            graphs = model.build()
            if not model.comes_trained:
                overrides = {**place.config.training, "seed": seed}
                records = _fitted(place, split, model, graphs, overrides, folder)
            save_weights(graphs.training, folder / "weights.npz")
        write_atomic(folder / "curve.json", msgspec.json.encode(records))

    return place.store.produce("train", inputs, make)


def _fitted(
    place: Place, split: Kept, model: Model, graphs: "Graphs", overrides: dict[str, Any], folder: Path
) -> list[dict[str, float]]:
    from edgepack.data.split import load_split
    from edgepack.train import checkpoint, fit
    from edgepack.train.settings import TrainingSettings

    chosen = {**_family_training(model), "filter_seen": place.config.quality.filter_seen, **overrides}
    settings = convert_table(chosen, TrainingSettings, "edgepack.toml: training")
    whole, _ = load_split(split.path)
    title = f"training {model.name} (seed {settings.seed})"
    told = _told(place.tell, title)
    if graphs.training is graphs.serving:
        history = fit.fit_scores(graphs.training, whole, settings, work=folder, tell=told)
    else:
        history = fit.fit(graphs, whole, settings, work=folder, tell=told)
    checkpoint.forget(folder)
    timeless = ("cpu_s", "wall_s")
    # Times differ from run to run and would give equal trainings unequal digests.
    return [{k: v for k, v in record.items() if k not in timeless} for record in history.records]


def _family_training(model: Model) -> dict[str, Any]:
    from importlib import import_module

    if "family" not in model.identity:
        return {}
    training: dict[str, Any] = import_module(f"edgepack.models.{model.name}").TRAINING
    return training


def _told(tell: Tell, title: str) -> Tell:
    return lambda figures, epoch, epochs: tell(f"{title}: {figures}", epoch, epochs)


def compress(place: Place, split: Kept, model: Model, trained: Kept, recipe_name: str) -> Kept:
    """Carry out a recipe: its folder is what `compress.steps.restore` reads, with reference scores beside.

    `reference_plain.npy` and `reference_int8.npy`, float32 [PARITY_ROWS, V + 1], are what the Keras model
    gives for the parity histories, without and with its rounding to 8 bits.
    """
    from edgepack.compress.recipes import RECIPES

    inputs = {
        "split": split.digest,
        "model": model.identity,
        "weights": trained.digest,
        "recipe": msgspec.to_builtins(RECIPES[recipe_name]),
        "training": [place.config.training, place.config.compress.training, place.config.seed],
        "filter_seen": place.config.quality.filter_seen,
        "code": source_fingerprint("compress", "train", "models", "keras2.py"),
        "versions": versions("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
    }

    def make(folder: Path) -> None:
        _carried_out(place, split, model, trained, recipe_name, folder)

    return place.store.produce("compress", inputs, make)


def _carried_out(
    place: Place, split: Kept, model: Model, trained: Kept, recipe_name: str, folder: Path
) -> None:
    import numpy as np

    from edgepack.compress import steps
    from edgepack.compress.recipes import RECIPES
    from edgepack.data.split import load_split
    from edgepack.train import fit

    if model.onnx is not None:
        from edgepack.convert import from_onnx

        rows = parity_histories(place, split)
        scores = from_onnx.reference(onnx_source(place, model), rows)
        np.save(folder / "reference_plain.npy", scores)
        np.save(folder / "reference_int8.npy", scores)
        return
    finetune, steps_per_epoch = _finetune(place, split, model, recipe_name)
    whole, _ = load_split(split.path)
    steps.compress(
        model.build,
        trained.path / "weights.npz",
        RECIPES[recipe_name],
        calibration=calibration(place, split),
        steps_per_epoch=steps_per_epoch,
        finetune=finetune,
        work=folder,
        popularity=np.bincount(whole.train.items, minlength=whole.item_count + 1),
    )
    histories = parity_histories(place, split)
    for quantized, name in ((False, "reference_plain.npy"), (True, "reference_int8.npy")):
        serving = steps.restore(model.build, folder, quantized=quantized)
        np.save(folder / name, np.concatenate(list(fit.predict(serving, histories))))


def _finetune(place: Place, split: Kept, model: Model, recipe_name: str) -> tuple[Any, int]:
    from edgepack.data.split import load_split
    from edgepack.train import checkpoint, fit
    from edgepack.train.settings import TrainingSettings

    whole, _ = load_split(split.path)
    base = {**_family_training(model), "filter_seen": place.config.quality.filter_seen}
    base |= {**place.config.training, **place.config.compress.training}

    def settings(**own: Any) -> TrainingSettings:
        table = {**base, "seed": place.config.seed, **own}
        return convert_table(table, TrainingSettings, "edgepack.toml: compress.training")

    def finetune(
        graphs: "Graphs", *, epochs: int, learning_rate: float, keep_last: bool, table: Any, work: Path
    ) -> object:
        chosen = settings(
            epochs=epochs, learning_rate=learning_rate, keep="last" if keep_last else "best", patience=0
        )
        told = _told(place.tell, f"{recipe_name}: {work.name}")
        if graphs.training is graphs.serving:
            history = fit.fit_scores(graphs.training, whole, chosen, work=work, tell=told)
        else:
            history = fit.fit(graphs, whole, chosen, work=work, tell=told, table=table)
        checkpoint.forget(work)
        return history

    return finetune, _steps_per_epoch(model.build(), whole, settings())


def _steps_per_epoch(graphs: "Graphs", whole: Any, settings: Any) -> int:
    from edgepack.train import draw

    one_position = graphs.pairwise or graphs.training is graphs.serving
    batches = draw.cut_batches if one_position else draw.position_batches
    return sum(1 for _ in batches(whole, graphs.serving.inputs[0].shape[1], settings)(0))
