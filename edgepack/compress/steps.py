"""Carries out a recipe on files: float weights in, `serving_weights.npz` and `recipe.json` out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack.compress import prune, qat
from edgepack.compress.recipes import Pruning, QuantizationAware, Recipe, Tables
from edgepack.compress.tables import formats
from edgepack.compress.weights import load_weights, save_weights
from edgepack.models.graphs import Graphs, transfer
from edgepack.store import write_atomic

_SERVING = "serving_weights.npz"
_RECIPE = "recipe.json"
_PRUNED = "pruned.npz"
_GRIDDED = "gridded.npz"


class Finetune(Protocol):
    """Trains `graphs.training` in place and goes on, after a kill, from what it left in `work`.

    `table` gives the item table that the loss must read, None for a model that gives scores itself.
    The last epoch's weights must remain, not the best epoch's, when `keep_last` is set.
    """

    def __call__(
        self,
        graphs: Graphs,
        *,
        epochs: int,
        learning_rate: float,
        keep_last: bool,
        table: Callable[[], Any] | None,
        work: Path,
    ) -> object:
        """Train."""


def compress(
    build: Callable[[], Graphs],
    weights: Path,
    recipe: Recipe,
    *,
    calibration: NDArray[np.int32],
    steps_per_epoch: int,
    finetune: Finetune,
    work: Path,
    popularity: NDArray[np.int64] | None = None,
) -> None:
    """Carry out `recipe` and leave its result in the folder `work`, for `restore`.

    `build` makes the untrained graphs, `weights` are those of its training graph after float training
    (as `save_weights` wrote them), `calibration` is int32 [n, L] real histories, `steps_per_epoch` the
    optimizer's; `popularity` int64 [V + 1] counts the training events of each item. `work` may hold what a
    killed attempt left. A user's model that is its own serving graph is given as
    Graphs(model, model, "", None).

    Raises ConvertError for a layer that a step of the recipe cannot take.
    """
    graphs = build()
    load_weights(graphs.training, weights)
    if recipe.pruning is not None:
        _prune(graphs, recipe.pruning, steps_per_epoch, finetune, work)
    rules: qat.Rules = {}
    if recipe.tables is not None:
        graphs = formats.shaped(graphs, recipe.tables)
        rules = formats.rules(graphs.training, recipe.tables, popularity)
        _put_on_grids(graphs, recipe.tables, rules, finetune, work)
    _to_serving(graphs)
    serving = graphs.serving
    if recipe.quantization is not None:
        keep_zeros = recipe.pruning is not None
        serving = _quantize(graphs, recipe.quantization, keep_zeros, rules, calibration, finetune, work)
    save_weights(serving, work / _SERVING)
    write_atomic(work / _RECIPE, msgspec.json.encode(recipe))
    for step in (_PRUNED, _GRIDDED):
        (work / step).unlink(missing_ok=True)
    for step in ("prune", "tables", "qat"):
        shutil.rmtree(work / step, ignore_errors=True)


def restore(build: Callable[[], Graphs], folder: Path, *, quantized: bool) -> Any:
    """Return the serving model that `compress` left in `folder`.

    `quantized` gives the one to make int8 TFLite files from: with the trained ranges, or with tables
    prepared for post-training quantization. Without it the plain layers come back, holding the same
    float weights: for float formats, dynamic range and everything ONNX.
    """
    recipe = msgspec.json.decode((folder / _RECIPE).read_bytes(), type=Recipe)
    graphs = build()
    if recipe.tables is not None:
        graphs = formats.shaped(graphs, recipe.tables)
    serving = graphs.serving
    if not quantized or recipe.quantization is None:
        load_weights(serving, folder / _SERVING)
        return qat.wrap_tables(serving, _tied(graphs)) if quantized else serving
    serving = qat.wrap(serving, keep_zeros=recipe.pruning is not None, float_outputs=True)
    load_weights(serving, folder / _SERVING)
    return serving


def _prune(graphs: Graphs, settings: Pruning, steps_per_epoch: int, finetune: Finetune, work: Path) -> None:
    if (work / _PRUNED).exists():
        load_weights(graphs.training, work / _PRUNED)
        return
    pruned = prune.prune(graphs.training, settings, steps_per_epoch=steps_per_epoch)
    finetune(
        _with_training(graphs, pruned),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        keep_last=True,
        table=_live_table(pruned, graphs.table),
        work=_folder(work / "prune"),
    )
    prune.strip(pruned, graphs.training)
    save_weights(graphs.training, work / _PRUNED)


def _put_on_grids(graphs: Graphs, settings: Tables, rules: qat.Rules, finetune: Finetune, work: Path) -> None:
    if (work / _GRIDDED).exists():
        load_weights(graphs.training, work / _GRIDDED)
        return
    wrapped = qat.wrap_grids(graphs.training, rules)
    if settings.epochs:
        encoder = graphs.tied is not None
        finetune(
            _with_training(graphs, wrapped),
            epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            keep_last=False,
            table=formats.table_of(wrapped, graphs.table) if encoder else None,
            work=_folder(work / "tables"),
        )
    qat.bake(wrapped)
    transfer(wrapped, graphs.training, table="", tied=None)
    save_weights(graphs.training, work / _GRIDDED)


def _quantize(
    graphs: Graphs,
    settings: QuantizationAware,
    keep_zeros: bool,
    rules: qat.Rules,
    calibration: NDArray[np.int32],
    finetune: Finetune,
    work: Path,
) -> Any:
    encoder = graphs.tied is not None
    serving = qat.wrap(graphs.serving, keep_zeros=keep_zeros, float_outputs=True)
    qat.calibrate(serving, graphs.serving, calibration)
    training = serving
    alone = graphs.training is graphs.serving
    if rules or not alone:
        # An encoder's output is rounded: in the file it is what the int8 scores layer reads.
        training = qat.wrap(graphs.training, keep_zeros=keep_zeros, float_outputs=not encoder, rules=rules)
        transfer(serving, training, table=graphs.table, tied=None)
    finetune(
        Graphs(training, training if alone else serving, graphs.table, graphs.tied),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        keep_last=False,
        table=qat.quantized_table(training, graphs.table) if encoder else None,
        work=_folder(work / "qat"),
    )
    qat.bake(training)
    if training is not serving:
        qat.carry(training, serving, table=graphs.table, tied=graphs.tied)
    qat.refresh_weight_ranges(serving)
    return serving


def _with_training(graphs: Graphs, training: Any) -> Graphs:
    alone = graphs.training is graphs.serving
    return Graphs(training, training if alone else graphs.serving, graphs.table, graphs.tied)


def _to_serving(graphs: Graphs) -> None:
    if graphs.training is not graphs.serving:
        transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)


def _live_table(wrapped: Any, table: str) -> Callable[[], Any] | None:
    layer = next((layer for layer in wrapped.layers if layer.name.endswith(table)), None)
    return (lambda: layer.layer.embeddings) if table and layer is not None else None


def _tied(graphs: Graphs) -> tuple[str, ...]:
    return (graphs.tied,) if graphs.tied is not None else ()


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
