"""Carries out a recipe on files: float weights in, `serving_weights.npz` and `recipe.json` out."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack.compress import cluster, equalize, importance, prune, qat, thin
from edgepack.compress.recipes import (
    Clustering,
    PostTraining,
    Pruning,
    QuantizationAware,
    Recipe,
    Tables,
    Thinning,
)
from edgepack.compress.tables import formats
from edgepack.compress.tables.current import current
from edgepack.compress.tables.low_rank import TURNS
from edgepack.compress.weights import load_weights, save_weights
from edgepack.errors import ConvertError, did_you_mean
from edgepack.models.folding import shipped
from edgepack.models.graphs import Graphs, transfer
from edgepack.rows import Rows
from edgepack.store import write_atomic

_SERVING = "serving_weights.npz"
_RECIPE = "recipe.json"
_THINNED = "thinned.npz"
_PRUNED = "pruned.npz"
_CLUSTERED = "clustered.npz"
_GRIDDED = "gridded.npz"
_CORRECTIONS = "bias_corrections.npz"


class Finetune(Protocol):
    """Trains `graphs.training` in place and goes on, after a kill, from what it left in `work`.

    `table` gives the item table that the loss must read, None for a model that gives scores itself.
    The last epoch's weights must remain, not the best epoch's, when `keep_last` is set. With `distil` the
    teacher's rankings are learnt, too.
    """

    def __call__(
        self,
        graphs: Graphs,
        *,
        epochs: int,
        learning_rate: float,
        keep_last: bool,
        distil: bool,
        table: Callable[[], Any] | None,
        work: Path,
    ) -> object:
        """Train."""


def compress(
    build: Callable[[], Graphs],
    weights: Path,
    recipe: Recipe,
    *,
    calibration: NDArray[np.int32] | Rows,
    steps_per_epoch: int,
    finetune: Finetune,
    work: Path,
    popularity: NDArray[np.int64] | None = None,
) -> None:
    """Carry out `recipe` and leave its result in the folder `work`, for `restore`.

    `build` makes the untrained graphs, `weights` are those of its training graph after float training
    (as `save_weights` wrote them), `calibration` is int32 [n, L] real rows an input, `steps_per_epoch` the
    optimizer's; `popularity` int64 [V + 1] counts the training events of each item. `work` may hold what a
    killed attempt left. A user's model that is its own serving graph is given as
    Graphs(model, model, "", None).

    Raises ConvertError for a layer that a step of the recipe cannot take, or that the model does not have.
    """
    trained = build()
    load_weights(trained.training, weights)
    # Folded first: zeros, ranges and rounding are of the weights that ship.
    graphs = shipped(trained)
    _require_layers(graphs, recipe)
    if recipe.thinning is not None:
        graphs = _thin(graphs, recipe.thinning, calibration, finetune, work)
    if recipe.pruning is not None:
        _prune(graphs, recipe.pruning, calibration, steps_per_epoch, finetune, work)
    rules: qat.Rules = {}
    if recipe.tables is not None:
        _to_serving(graphs)
        worth = formats.worth_of(graphs, recipe.tables, calibration)
        graphs = formats.shaped(graphs, recipe.tables, worth, popularity)
        rules = formats.rules(graphs.training, recipe.tables, popularity, worth)
        _put_on_grids(graphs, recipe.tables, rules, finetune, work)
    if recipe.clustering is not None:
        _cluster(graphs, recipe, recipe.clustering, finetune, work)
    _to_serving(graphs)
    serving = graphs.serving
    if recipe.quantization is not None:
        serving = _quantize(graphs, recipe, recipe.quantization, rules, calibration, finetune, work)
    elif recipe.post_training is not None:
        serving = _calibrated(graphs, recipe, recipe.post_training, calibration, work)
    save_weights(serving, work / _SERVING)
    write_atomic(work / _RECIPE, msgspec.json.encode(recipe))
    for name in (_THINNED, _PRUNED, _GRIDDED, _CLUSTERED):
        (work / name).unlink(missing_ok=True)
    for step in ("thin", "prune", "tables", "cluster", "qat"):
        shutil.rmtree(work / step, ignore_errors=True)


def _require_layers(graphs: Graphs, recipe: Recipe) -> None:
    """Raise ConvertError for a name in the recipe that is none of the model's layers."""
    known = dict.fromkeys(layer.name for view in (graphs.serving, graphs.training) for layer in view.layers)
    known |= dict.fromkeys(TURNS if recipe.tables is not None and recipe.tables.rank_share else ())
    named = {"tables.layers": recipe.tables.layers if recipe.tables is not None else ()}
    for key, names in {**named, "post_training.float_layers": recipe.calibrated.float_layers}.items():
        for name in names:
            if name not in known:
                raise ConvertError(
                    f"recipe '{recipe.name}': {key}",
                    f"model '{graphs.serving.name}' has no layer '{name}'",
                    allowed=f"its layers are {', '.join(known)}",
                    remedy=f"{did_you_mean(name, list(known))}Correct or delete it.",
                )


def restore(
    build: Callable[[], Graphs], folder: Path, *, quantized: bool, float_layers: Collection[str] = ()
) -> Any:
    """Return the serving model that `compress` left in `folder`.

    `quantized` gives the one to make int8 TFLite files from: with the trained ranges, or with tables
    prepared for post-training quantization. Without it the plain layers come back, holding the same
    float weights: for float formats, dynamic range and everything ONNX. `float_layers` are left as they are,
    for a conversion that keeps the layers of these names float, too; the recipe's own always are.
    """
    recipe = msgspec.json.decode((folder / _RECIPE).read_bytes(), type=Recipe)
    float_layers = {*float_layers, *recipe.calibrated.float_layers}
    graphs = shipped(build())
    if recipe.thinning is not None:
        graphs = thin.reshaped(graphs, recipe.thinning)
    if recipe.tables is not None:
        graphs = formats.shaped(graphs, recipe.tables)
    serving = graphs.serving
    if not quantized or not recipe.wraps:
        load_weights(serving, folder / _SERVING)
        return qat.wrap_tables(serving, _tied(graphs), float_layers) if quantized else serving
    serving = _wrapped(serving, recipe, float_layers=float_layers)
    load_weights(serving, folder / _SERVING)
    if (folder / _CORRECTIONS).exists():
        with np.load(folder / _CORRECTIONS) as corrections:
            equalize.add_to_biases(serving, dict(corrections))
    return serving


def _thin(
    graphs: Graphs, settings: Thinning, calibration: NDArray[np.int32] | Rows, finetune: Finetune, work: Path
) -> Graphs:
    if (work / _THINNED).exists():
        graphs = thin.reshaped(graphs, settings)
        load_weights(graphs.training, work / _THINNED)
        return graphs
    _to_serving(graphs)
    graphs = thin.thin(graphs, settings, calibration)
    rows = graphs.training.get_layer(graphs.table) if graphs.tied is not None else None
    finetune(
        graphs,
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        keep_last=True,
        distil=settings.distil,
        table=None if rows is None else lambda: rows.embeddings,
        work=_folder(work / "thin"),
    )
    save_weights(graphs.training, work / _THINNED)
    return graphs


def _prune(
    graphs: Graphs,
    settings: Pruning,
    calibration: NDArray[np.int32] | Rows,
    steps_per_epoch: int,
    finetune: Finetune,
    work: Path,
) -> None:
    if (work / _PRUNED).exists():
        load_weights(graphs.training, work / _PRUNED)
        return
    shares = None
    if settings.criterion == "first-order":
        _to_serving(graphs)
        worth = importance.importance(graphs, calibration)
        shares = prune.zeroed(graphs.training, worth, settings.zero_share)
    pruned = prune.prune(graphs.training, settings, steps_per_epoch=steps_per_epoch, shares=shares)
    finetune(
        _with_training(graphs, pruned),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        keep_last=True,
        distil=settings.distil,
        table=_live_table(pruned, graphs.table),
        work=_folder(work / "prune"),
    )
    prune.strip(pruned, graphs.training)
    save_weights(graphs.training, work / _PRUNED)


def _cluster(graphs: Graphs, recipe: Recipe, settings: Clustering, finetune: Finetune, work: Path) -> None:
    if (work / _CLUSTERED).exists():
        load_weights(graphs.training, work / _CLUSTERED)
        return
    clustered = cluster.cluster(graphs.training, settings.clusters, keep_zeros=recipe.pruning is not None)
    finetune(
        _with_training(graphs, clustered),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        keep_last=True,
        distil=settings.distil,
        table=current(clustered, graphs.table) if graphs.tied is not None else None,
        work=_folder(work / "cluster"),
    )
    cluster.strip(clustered, graphs.training, settings.clusters)
    save_weights(graphs.training, work / _CLUSTERED)


def _wrapped(
    model: Any,
    recipe: Recipe,
    *,
    float_outputs: bool = True,
    float_layers: Collection[str] = (),
    rules: qat.Rules | None = None,
) -> Any:
    return qat.wrap(
        model,
        keep_zeros=recipe.pruning is not None,
        keep_clusters=recipe.clustering is not None,
        float_outputs=float_outputs,
        float_layers=float_layers,
        rules=rules,
    )


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
            distil=settings.distil,
            table=current(wrapped, graphs.table) if encoder else None,
            work=_folder(work / "tables"),
        )
    qat.bake(wrapped)
    transfer(wrapped, graphs.training, table="", tied=None)
    save_weights(graphs.training, work / _GRIDDED)


def _quantize(
    graphs: Graphs,
    recipe: Recipe,
    settings: QuantizationAware,
    rules: qat.Rules,
    calibration: NDArray[np.int32] | Rows,
    finetune: Finetune,
    work: Path,
) -> Any:
    encoder = graphs.tied is not None
    serving = _wrapped(graphs.serving, recipe)
    qat.calibrate(serving, graphs.serving, calibration)
    training = serving
    alone = graphs.training is graphs.serving
    if rules or not alone:
        # An encoder's output is rounded: in the file it is what the int8 scores layer reads.
        training = _wrapped(graphs.training, recipe, float_outputs=not encoder, rules=rules)
        transfer(serving, training, table=graphs.table, tied=None)
    finetune(
        graphs._replace(training=training, serving=training if alone else serving),
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        keep_last=False,
        distil=settings.distil,
        table=current(training, graphs.table) if encoder else None,
        work=_folder(work / "qat"),
    )
    qat.bake(training)
    if training is not serving:
        qat.carry(training, serving, table=graphs.table, tied=graphs.tied)
    qat.refresh_weight_ranges(serving)
    if recipe.clustering is not None:
        transfer(serving, graphs.serving, table="", tied=None)
        cluster.require(graphs.serving, recipe.clustering.clusters)
    return serving


def _calibrated(
    graphs: Graphs, recipe: Recipe, settings: PostTraining, calibration: NDArray[np.int32] | Rows, work: Path
) -> Any:
    if settings.equalize:
        equalize.equalize(graphs.serving, _tied(graphs))
    serving, corrections = _wrapped(graphs.serving, recipe, float_layers=settings.float_layers), {}
    if settings.bias_correction:
        corrections = equalize.bias_corrections(serving, graphs.serving, calibration)
        # Apart from the weights: other formats round otherwise, or not at all.
        np.savez(work / _CORRECTIONS, **corrections)
    if settings.range_correction:
        equalize.add_to_biases(serving, corrections)
        qat.calibrate_in_turn(serving, calibration, settings.calibration)
        transfer(graphs.serving, serving, table="", tied=None)  # takes the corrections out again
    else:
        qat.calibrate(serving, graphs.serving, calibration, settings.calibration)
    return serving


def _with_training(graphs: Graphs, training: Any) -> Graphs:
    alone = graphs.training is graphs.serving
    return graphs._replace(training=training, serving=training if alone else graphs.serving)


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
