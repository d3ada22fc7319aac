"""Trains a model's graphs, or any Keras model that gives scores, on a split."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.data.types import Split
from edgepack.errors import ConfigError
from edgepack.keras2 import deterministic, tf
from edgepack.models.graphs import Graphs, fed, transfer
from edgepack.rows import Rows, part, row_count
from edgepack.tools import Tell
from edgepack.train import distil, draw, losses
from edgepack.train.loop import Job, train
from edgepack.train.settings import History, TrainingSettings

_CHUNK_ROWS = 256


def fit(
    graphs: Graphs,
    split: Split,
    settings: TrainingSettings,
    *,
    work: Path,
    tell: Tell,
    table: Callable[[], Any] | None = None,
    guide: distil.Guide | None = None,
    callbacks: Sequence[Any] = (),
) -> History:
    """Train `graphs.training` on `split.train`, then copy its weights into `graphs.serving`.

    A split into baskets is learnt basket to basket. `work` keeps the last finished epoch:
    called again after a kill, with the same settings and a model built the same way, training goes on
    from it and ends with the same bits; call `checkpoint.forget(work)` when the result is safe. `table`
    gives the item table that the loss reads (float32 [V + 1, d]; the Embedding's weight by default);
    `guide` is a teacher whose rankings are learnt, too; `callbacks` are Keras callbacks, told of the
    start, every batch and every epoch.

    Raises DataError when there is nothing to learn from, ConfigError when the loss does not fit.
    """
    deterministic(settings.seed)
    distil.refuse_other_inputs(graphs, guide)
    if graphs.pairwise:
        job = _pair_job(graphs, split, settings, guide)
    else:
        job = _encoder_job(graphs, split, settings, table, guide)
    history = train(job, split, settings, work=work, tell=tell, callbacks=callbacks)
    transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)
    return history


def fit_scores(
    model: Any,
    split: Split,
    settings: TrainingSettings,
    *,
    work: Path,
    tell: Tell,
    guide: distil.Guide | None = None,
    callbacks: Sequence[Any] = (),
) -> History:
    """Train any Keras model `history` int32 [B, L] -> logits [B, V + 1] by full softmax on cut histories.

    Otherwise as `fit`; the model's own Dropout layers draw from TensorFlow's generator, so a training
    with them repeats to the bit only when it is not interrupted.
    """
    deterministic(settings.seed)
    length = model.inputs[0].shape[1]

    distil.refuse_hints(guide)
    about = distil.about(guide)

    def loss(history: Any, target: Any) -> Any:
        scores = model(history[:, -length:], training=True)
        found = losses.catalogue_loss(scores, target)
        return found if guide is None else distil.scores_loss(guide, history, scores, found)

    batches = draw.cut_batches(split, distil.window(length, guide), settings)
    job = Job(model, length, batches, loss, lambda rows: predict(model, rows), about=about)
    return train(job, split, settings, work=work, tell=tell, callbacks=callbacks)


def predict(serving: Any, rows: NDArray[np.int32] | Rows) -> Iterator[NDArray[np.float32]]:
    """Give the scores float32 [n, V + 1] of rows int32 [N, length] an input, a few hundred at a time."""
    call = tf.function(lambda fed: serving(fed, training=False), reduce_retracing=True)
    return _in_chunks(call, serving, rows)


def _encoder_job(
    graphs: Graphs,
    split: Split,
    settings: TrainingSettings,
    table: Callable[[], Any] | None,
    guide: distil.Guide | None,
) -> Job:
    model, length = graphs.training, graphs.training.inputs[0].shape[1]
    weights = table or (lambda: model.get_layer(graphs.table).embeddings)
    rows = weights if graphs.rows is None else lambda: graphs.rows(model, tf.convert_to_tensor(weights()))
    loss_of = losses.LOSSES[settings.loss]
    hints = distil.projection(guide, length, model.outputs[0].shape[-1], settings.seed)

    def loss(history: Any, targets: Any, negatives: Any, *query: Any) -> Any:
        seen, targets = history[:, -length:], targets[:, -length:]
        hidden = model([seen, *query] if query else seen, training=True)
        taught = tf.where(targets > 0)
        hidden, targets = tf.gather_nd(hidden, taught), tf.gather_nd(targets, taught)
        items = tf.convert_to_tensor(rows())
        found = loss_of(hidden, targets, negatives, items)
        if guide is None:
            return found
        return distil.encoder_loss(guide, history, length, hidden, taught, items, hints, found)

    def score(fed: Any) -> Any:
        if isinstance(fed, list):
            fed = [fed[0], fed[1][:, None, :]]  # one query for all positions
        elif graphs.cloze:
            fed = _with_gap(fed, split.item_count)
        return tf.matmul(model(fed, training=False)[:, -1, :], rows(), transpose_b=True)

    call = tf.function(score, reduce_retracing=True)
    draws = draw.cloze_batches if graphs.cloze else draw.position_batches
    batches = draws(split, distil.window(length, guide), settings)
    scores = partial(_in_chunks, call, model)
    return Job(model, length, batches, loss, scores, extras=hints, about=distil.about(guide))


def _with_gap(history: Any, item_count: int) -> Any:
    """Return `history` with the mask behind its newest item, as a model that fills gaps is asked."""
    return tf.pad(history[:, 1:], [[0, 0], [0, 1]], constant_values=item_count + 1)


def _pair_job(graphs: Graphs, split: Split, settings: TrainingSettings, guide: distil.Guide | None) -> Job:
    model, length = graphs.training, graphs.training.inputs[0].shape[1]
    loss_of = losses.PAIR_LOSSES.get(settings.loss)
    if loss_of is None:
        raise ConfigError(
            "training settings: loss",
            f"{settings.loss} does not fit a model that scores given candidates",
            allowed=f"it can take {', '.join(losses.PAIR_LOSSES)}",
            remedy="Choose one of these.",
        )
    distil.refuse_hints(guide)

    def loss(history: Any, candidates: Any) -> Any:
        def ask(items: Any) -> Any:
            return model([history[:, -length:], items], training=True)

        if guide is None:
            return loss_of(ask(candidates))
        return distil.pair_loss(guide, history, candidates, ask, loss_of)

    call = tf.function(lambda rows: graphs.serving(rows, training=False), reduce_retracing=True)

    def scores(rows: Rows) -> Iterator[NDArray[np.float32]]:
        transfer(model, graphs.serving, table=graphs.table, tied=graphs.tied)
        return _in_chunks(call, graphs.serving, rows)

    batches = draw.candidate_batches(split, distil.window(length, guide), settings)
    return Job(model, length, batches, loss, scores, about=distil.about(guide))


def _in_chunks(
    call: Callable[[Any], Any], model: Any, rows: NDArray[np.int32] | Rows
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, row_count(rows), _CHUNK_ROWS):
        yield call(fed(model, part(rows, start, start + _CHUNK_ROWS))).numpy()
