"""Float weights -> the weights of a recipe, settled by accuracy control where it asks for that."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgepack.compress.recipes import Recipe, known
from edgepack.profiles import convert_table
from edgepack.stages import Place, controlled, versions
from edgepack.stages.configured import Model, distillation, onnx_source, why_no_student
from edgepack.stages.logs import calibration, parity_rows
from edgepack.stages.models import Trained, family_training, guide_of, identity_of, telling
from edgepack.store import Kept, source_fingerprint

if TYPE_CHECKING:
    from edgepack.models.graphs import Graphs


def why_not(model: Model, recipe: Recipe) -> str:
    """Return why `model` cannot go through `recipe` at all, "" when it can."""
    if recipe.trains and model.why_not_trained_further:
        return f"{model.name} cannot be trained further: {model.why_not_trained_further}"
    if recipe.needs_layers and model.onnx is not None:
        return f"{model.name} came as ONNX, which holds no Keras layers: use the recipe `ptq`"
    reason = why_no_student(model) if recipe.is_guided else ""
    return f"{model.name} can listen to no teacher: {reason}" if reason else ""


def compress(
    place: Place, split: Kept, trained: Trained, recipe_name: str, taught_by: Trained | None = None
) -> Kept:
    """Carry out a recipe: its folder is what `compress.steps.restore` reads, with reference scores beside.

    Its trainings listen, where the recipe says so, to `taught_by`, or to the float model itself.

    `reference_plain.npy` and `reference_int8.npy`, float32 [PARITY_ROWS, V + 1], are what the Keras model
    gives for the parity histories, without and with its rounding to 8 bits.
    """
    model, recipe = trained.model, known(place.config.compress.own)[recipe_name]
    recipe = controlled.settled(place, split, trained, recipe)
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
        inputs["teacher"] = [identity_of(taught_by or trained), place.config.distillation]

    def make(folder: Path) -> None:
        _carried_out(place, split, trained, recipe, taught_by or trained, folder)

    return place.store.produce("compress", inputs, make)


def _carried_out(
    place: Place, split: Kept, trained: Trained, recipe: Recipe, teacher: Trained, folder: Path
) -> None:
    import numpy as np

    from edgepack.compress import steps
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
    finetune, steps_per_epoch = _finetune(place, split, model, recipe.name, teacher)
    whole, _ = load_split(split.path)
    steps.compress(
        model.build,
        trained.weights.path / "weights.npz",
        recipe,
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
    base = {**family_training(model), "filter_seen": place.config.quality.filter_seen}
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
        # An average of weights on their way to zero, or to one value, is neither.
        kept = {"keep": "last", "average": 0.0} if keep_last else {"keep": "best"}
        chosen = settings(epochs=epochs, learning_rate=learning_rate, patience=0, **kept)
        told = telling(place.tell, f"{recipe_name}: {work.name}")
        # What the hints' projection had learnt was left behind with the float training.
        guide = guide_of(teacher, msgspec.structs.replace(distillation(place), hints=0.0)) if distil else None
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
