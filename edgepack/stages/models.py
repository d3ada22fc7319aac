"""Split -> float weights -> the weights of each recipe, with a teacher where one is configured."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgepack.profiles import convert_table
from edgepack.stages import Place, versions
from edgepack.stages.configured import Model, distillation, onnx_source
from edgepack.stages.logs import calibration, parity_rows
from edgepack.store import Kept, digest_of, source_fingerprint, write_atomic
from edgepack.tools import Tell
from edgepack.train.settings import Distillation

if TYPE_CHECKING:
    from edgepack.models.graphs import Graphs
    from edgepack.train.distil import Guide


class Trained(NamedTuple):
    """A model with its weights: what a student learns from."""

    model: Model
    weights: Kept


def train(place: Place, split: Kept, model: Model, seed: int) -> Kept:
    """Train a float model on what users took: `weights.npz` (of the training graph) and `curve.json`."""
    inputs = _train_inputs(place, split, model, seed)
    return place.store.produce("train", inputs, partial(_train, place, split, model, seed, None))


def distil(place: Place, split: Kept, student: Model, taught_by: Trained, seed: int) -> Kept:
    """Train `student` on what users took and on how the teacher ranks: files as of `train`.

    The teacher's own stage is not touched: one teacher serves any number of students.
    """
    inputs = {
        **_train_inputs(place, split, student, seed),
        "teacher": _taught_by(taught_by),
        "distillation": place.config.distillation,
    }
    return place.store.produce("distil", inputs, partial(_train, place, split, student, seed, taught_by))


def _train_inputs(place: Place, split: Kept, model: Model, seed: int) -> dict[str, Any]:
    return {
        "split": split.digest,
        "model": model.identity,
        "training": [model.training, place.config.quality.filter_seen],
        "seed": seed,
        "code": source_fingerprint("train", "models", "keras2.py"),
        "versions": versions("tensorflow", "tf_keras", "numpy"),
    }


def _taught_by(teacher: Trained) -> list[Any]:
    return [teacher.model.identity, teacher.weights.digest]


def _train(
    place: Place, split: Kept, model: Model, seed: int, taught_by: Trained | None, folder: Path
) -> None:
    from edgepack.compress.weights import save_weights

    records: list[dict[str, float]] = []
    if model.onnx is None:
        graphs = model.build()
        if taught_by is not None or not model.comes_trained:
            records = _fitted(place, split, model, graphs, seed, taught_by, folder)
        save_weights(graphs.training, folder / "weights.npz")
    write_atomic(folder / "curve.json", msgspec.json.encode(records))


def _fitted(
    place: Place,
    split: Kept,
    model: Model,
    graphs: "Graphs",
    seed: int,
    taught_by: Trained | None,
    folder: Path,
) -> list[dict[str, float]]:
    from edgepack.data.split import load_split
    from edgepack.train import checkpoint, distil, fit, start
    from edgepack.train.settings import TrainingSettings

    chosen = {**_family_training(model), "filter_seen": place.config.quality.filter_seen}
    chosen |= {**model.training, "seed": seed}
    where = "training" if model.table == "model" else f"{model.table}.training"
    settings = convert_table(chosen, TrainingSettings, f"edgepack.toml: {where}")
    whole, _ = load_split(split.path)
    told = _told(place.tell, f"{'distilling' if taught_by else 'training'} {model.name} (seed {seed})")
    guide = None
    if taught_by is not None:
        guide = _guide(taught_by, distillation(place))
        if not model.comes_trained:
            distil.start(graphs, guide)
    if settings.start == "ease":
        began = time.process_time()
        start.from_ease(graphs, whole)
        told(f"begun at EASE's axes, {time.process_time() - began:.0f} CPU s", 0, settings.epochs)
    train = fit.fit_scores if graphs.training is graphs.serving else fit.fit
    asked = graphs.training if graphs.training is graphs.serving else graphs
    history = train(asked, whole, settings, work=folder, tell=told, guide=guide)
    checkpoint.forget(folder)
    timeless = ("cpu_s", "wall_s")
    # Times differ from run to run and would give equal trainings unequal digests.
    return [{k: v for k, v in record.items() if k not in timeless} for record in history.records]


def _guide(taught_by: Trained, how: Distillation) -> "Guide":
    from edgepack.train.distil import Guide, teacher_of

    identity = digest_of(_taught_by(taught_by))
    return Guide(teacher_of(trained_graphs(taught_by), taught_by.model.length, identity), how)


def trained_graphs(trained: Trained) -> "Graphs":
    """Return a model's two graphs with its float weights in both."""
    from edgepack.compress.weights import load_weights
    from edgepack.models.graphs import transfer

    graphs = trained.model.build()
    load_weights(graphs.training, trained.weights.path / "weights.npz")
    if graphs.training is not graphs.serving:
        transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)
    return graphs


def _family_training(model: Model) -> dict[str, Any]:
    from importlib import import_module

    if "family" not in model.identity:
        return {}
    training: dict[str, Any] = import_module(f"edgepack.models.{model.name}").TRAINING
    return training


def _told(tell: Tell, title: str) -> Tell:
    return lambda figures, epoch, epochs: tell(f"{title}: {figures}", epoch, epochs)


def compress(
    place: Place, split: Kept, trained: Trained, recipe_name: str, taught_by: Trained | None = None
) -> Kept:
    """Carry out a recipe: its folder is what `compress.steps.restore` reads, with reference scores beside.

    Its trainings listen, where the recipe says so, to `taught_by`, or to the float model itself.

    `reference_plain.npy` and `reference_int8.npy`, float32 [PARITY_ROWS, V + 1], are what the Keras model
    gives for the parity histories, without and with its rounding to 8 bits.
    """
    from edgepack.compress.recipes import RECIPES

    model, recipe = trained.model, RECIPES[recipe_name]
    inputs = {
        "split": split.digest,
        "model": model.identity,
        "weights": trained.weights.digest,
        "recipe": msgspec.to_builtins(recipe),
        "training": [model.training, place.config.compress.training, place.config.seed],
        "filter_seen": place.config.quality.filter_seen,
        "code": source_fingerprint("compress", "ranges.py", "train", "models", "keras2.py"),
        "versions": versions("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
    }

    if recipe.is_guided:
        inputs["teacher"] = [_taught_by(taught_by or trained), place.config.distillation]

    def make(folder: Path) -> None:
        _carried_out(place, split, trained, recipe_name, taught_by or trained, folder)

    return place.store.produce("compress", inputs, make)


def _carried_out(
    place: Place, split: Kept, trained: Trained, recipe_name: str, teacher: Trained, folder: Path
) -> None:
    import numpy as np

    from edgepack.compress import steps
    from edgepack.compress.recipes import RECIPES
    from edgepack.data.split import load_split
    from edgepack.train import fit

    model = trained.model
    if model.onnx is not None:
        from edgepack.convert import from_onnx

        rows = parity_rows(place, split)
        scores = from_onnx.reference(onnx_source(model), rows["history"])
        np.save(folder / "reference_plain.npy", scores)
        np.save(folder / "reference_int8.npy", scores)
        return
    finetune, steps_per_epoch = _finetune(place, split, model, recipe_name, teacher)
    whole, _ = load_split(split.path)
    steps.compress(
        model.build,
        trained.weights.path / "weights.npz",
        RECIPES[recipe_name],
        calibration=calibration(place, split),
        steps_per_epoch=steps_per_epoch,
        finetune=finetune,
        work=folder,
        popularity=np.bincount(whole.train.items, minlength=whole.item_count + 1),
    )
    rows = parity_rows(place, split)
    for quantized, name in ((False, "reference_plain.npy"), (True, "reference_int8.npy")):
        serving = steps.restore(model.build, folder, quantized=quantized)
        np.save(folder / name, np.concatenate(list(fit.predict(serving, rows))))


def _finetune(place: Place, split: Kept, model: Model, recipe_name: str, teacher: Trained) -> tuple[Any, int]:
    from edgepack.data.split import load_split
    from edgepack.train import checkpoint, fit
    from edgepack.train.settings import TrainingSettings

    whole, _ = load_split(split.path)
    base = {**_family_training(model), "filter_seen": place.config.quality.filter_seen}
    base |= {**model.training, **place.config.compress.training}

    def settings(**own: Any) -> TrainingSettings:
        table = {**base, "seed": place.config.seed, **own}
        return convert_table(table, TrainingSettings, "edgepack.toml: compress.training")

    def finetune(
        graphs: "Graphs",
        *,
        epochs: int,
        learning_rate: float,
        keep_last: bool,
        distil: bool,
        table: Any,
        work: Path,
    ) -> object:
        chosen = settings(
            epochs=epochs, learning_rate=learning_rate, keep="last" if keep_last else "best", patience=0
        )
        told = _told(place.tell, f"{recipe_name}: {work.name}")
        # What the hints' projection had learnt was left behind with the float training.
        how = msgspec.structs.replace(distillation(place), hints=0.0)
        guide = _guide(teacher, how) if distil else None
        if graphs.training is graphs.serving:
            history = fit.fit_scores(graphs.training, whole, chosen, work=work, tell=told, guide=guide)
        else:
            history = fit.fit(graphs, whole, chosen, work=work, tell=told, table=table, guide=guide)
        checkpoint.forget(work)
        return history

    return finetune, _steps_per_epoch(model.build(), whole, settings())


def _steps_per_epoch(graphs: "Graphs", whole: Any, settings: Any) -> int:
    from edgepack.train import draw

    one_position = graphs.pairwise or graphs.cloze or graphs.training is graphs.serving
    batches = draw.cut_batches if one_position else draw.position_batches
    return sum(1 for _ in batches(whole, graphs.serving.inputs[0].shape[1], settings)(0))
