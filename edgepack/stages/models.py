"""Split -> float weights, with a teacher where one is configured."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgepack.profiles import convert_table
from edgepack.stages import Place, versions
from edgepack.stages.configured import Model, distillation
from edgepack.store import Kept, digest_of, source_fingerprint, write_atomic
from edgepack.tools import Tell
from edgepack.train.settings import Distillation

if TYPE_CHECKING:
    from edgepack.models.graphs import Graphs
    from edgepack.train.distil import Guide


class Trained(NamedTuple):
    """A model with its weights: what a student learns from.

    `others` are the weights of an ensemble's other trainings: its scores are the mean of all.
    """

    model: Model
    weights: Kept
    others: tuple[Kept, ...] = ()

    @property
    def members(self) -> tuple["Trained", ...]:
        """Each training by itself."""
        return tuple(Trained(self.model, weights) for weights in (self.weights, *self.others))


def train(place: Place, split: Kept, model: Model, seed: int) -> Kept:
    """Train a float model on what users took: `weights.npz` (of the training graph) and `curve.json`."""
    inputs = _train_inputs(place, split, model, seed)
    return place.store.produce("train", inputs, partial(_train, place, split, model, seed, None))


def train_each(place: Place, split: Kept, model: Model, seed: int, count: int) -> Trained:
    """Train a model `count` times, with `seed` and those after it: an ensemble, where there are several."""
    first, *others = (train(place, split, model, seed + more) for more in range(count))
    return Trained(model, first, tuple(others))


def distil(place: Place, split: Kept, student: Model, taught_by: Trained, seed: int) -> Kept:
    """Train `student` on what users took and on how the teacher ranks: files as of `train`.

    The teacher's own stage is not touched: one teacher serves any number of students.
    """
    inputs = {
        **_train_inputs(place, split, student, seed),
        "teacher": identity_of(taught_by),
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


def identity_of(teacher: Trained) -> list[Any]:
    """Return what stands for a trained model in the inputs of a stage."""
    return [teacher.model.identity, *(one.weights.digest for one in teacher.members)]


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

    chosen = {**family_training(model), "filter_seen": place.config.quality.filter_seen}
    chosen |= {**model.training, "seed": seed}
    where = "training" if model.table == "model" else f"{model.table}.training"
    settings = convert_table(chosen, TrainingSettings, f"edgepack.toml: {where}")
    whole, _ = load_split(split.path)
    told = telling(place.tell, f"{'distilling' if taught_by else 'training'} {model.name} (seed {seed})")
    guide = None
    if taught_by is not None:
        guide = guide_of(taught_by, distillation(place))
        if not model.comes_trained:
            distil.start(graphs, guide)
    if settings.start != "random":
        began = time.process_time()
        start.begin(graphs, whole, settings.start)
        told(f"begun at {settings.start}, {time.process_time() - began:.0f} CPU s", 0, settings.epochs)
    train = fit.fit_scores if graphs.training is graphs.serving else fit.fit
    asked = graphs.training if graphs.training is graphs.serving else graphs
    history = train(asked, whole, settings, work=folder, tell=told, guide=guide)
    checkpoint.forget(folder)
    timeless = ("cpu_s", "wall_s")
    # Times differ from run to run and would give equal trainings unequal digests.
    return [{k: v for k, v in record.items() if k not in timeless} for record in history.records]


def guide_of(taught_by: Trained, how: Distillation) -> "Guide":
    """Return a trained model as the teacher of another."""
    from edgepack.train.distil import Guide, teacher_of, together

    identity, length = digest_of(identity_of(taught_by)), taught_by.model.length
    teachers = [teacher_of(trained_graphs(one), length, identity) for one in taught_by.members]
    return Guide(together(teachers, identity), how)


def trained_graphs(trained: Trained) -> "Graphs":
    """Return a model's two graphs with its float weights in both (an ensemble's: its first training's)."""
    from edgepack.compress.weights import load_weights
    from edgepack.models.graphs import transfer

    graphs = trained.model.build()
    load_weights(graphs.training, trained.weights.path / "weights.npz")
    if graphs.training is not graphs.serving:
        transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)
    return graphs


def family_training(model: Model) -> dict[str, Any]:
    """Return how the model's family trains, by default; nothing for a user's own model."""
    from importlib import import_module

    if "family" not in model.identity:
        return {}
    training: dict[str, Any] = import_module(f"edgepack.models.{model.name}").TRAINING
    return training


def telling(tell: Tell, title: str) -> Tell:
    """Return `tell` with `title` before whatever is told."""
    return lambda figures, epoch, epochs: tell(f"{title}: {figures}", epoch, epochs)
