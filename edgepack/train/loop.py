"""The training loop: deterministic to the bit, and resumable from the last finished epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack.data.types import Split, rows
from edgepack.keras2 import keras, tf
from edgepack.models.graphs import dropout_step
from edgepack.rows import Rows
from edgepack.store import digest_of
from edgepack.tools import Tell
from edgepack.train import checkpoint, validation
from edgepack.train.draw import Draw
from edgepack.train.settings import History, TrainingSettings

_LAST_RATE_SHARE = 0.01


class Job(NamedTuple):
    """What differs between the ways to train.

    `draw` gives an epoch's batches; `loss` takes one and gives a scalar tensor; `scores` gives
    float32 [n, V + 1] in chunks for rows of histories int32 [N, length] (and queries). `extras` are variables
    that are trained beside the model and left behind; `about` is JSON of what else the loss depends on.
    """

    model: Any
    length: int
    draw: Draw
    loss: Callable[..., Any]
    scores: Callable[[Rows], Iterator[NDArray[np.float32]]]
    extras: Sequence[Any] = ()
    about: object = None

    @property
    def variables(self) -> list[Any]:
        """All that a checkpoint must hold, beside the optimizer's."""
        return [*self.model.variables, *self.extras]

    @property
    def trained(self) -> list[Any]:
        """What gradients change."""
        return [*self.model.trainable_variables, *self.extras]


def train(
    job: Job,
    split: Split,
    settings: TrainingSettings,
    *,
    work: Path,
    tell: Tell,
    callbacks: Sequence[Any],
) -> History:
    """Train `job.model` in place and return what happened; goes on from what `work` holds."""
    steps = sum(1 for _ in job.draw(0))
    optimizer = _optimizer(settings)
    optimizer.build(job.trained)
    key = _key(job, split, settings)
    state = checkpoint.load(work, key) or checkpoint.State([], [], [], [])
    if state.records:
        _put(job.variables, state.weights)
        _put(optimizer.variables, state.optimizer)
        tell("going on after a finished epoch", len(state.records), settings.epochs)
    _begin(callbacks, job.model, optimizer)
    step = _step_function(job, optimizer)
    users = validation.sample(split.valid, settings.validation_users, settings.seed)
    fed = rows(split, users, job.length)
    for epoch in range(len(state.records), settings.epochs):
        if _stale(state.records, settings.patience):
            break
        clock = _Clock(state.records)
        loss = _epoch(job, step, optimizer, epoch, steps, settings, callbacks)
        trained = _values(job)
        if settings.average:
            optimizer.finalize_variable_values(job.trained)
        quality = validation.rate(users, job.scores(fed), filter_seen=settings.filter_seen)
        record = {"loss": loss, **quality, **clock.read()}
        state = _next_state(job, optimizer, state, record, settings, trained)
        checkpoint.save(work, key, state)
        tell(_figures(record), epoch + 1, settings.epochs)
        _put(job.variables, trained)
    if state.kept:
        _put(job.variables, state.kept)
    return History(state.records, _best(state.records) + 1 if settings.keep == "best" else len(state.records))


def _epoch(
    job: Job,
    step: Callable[..., Any],
    optimizer: Any,
    epoch: int,
    steps: int,
    settings: TrainingSettings,
    callbacks: Sequence[Any],
) -> float:
    losses = []
    for index, batch in enumerate(job.draw(epoch), start=epoch * steps):
        optimizer.learning_rate.assign(_learning_rate(index, steps * settings.epochs, settings))
        dropout_step().assign((settings.seed << 32) + index)
        for callback in callbacks:
            callback.on_train_batch_begin(index)
        losses.append(step(*(tf.constant(array) for array in batch)))
    for callback in callbacks:
        callback.on_epoch_end(epoch)
    return float(np.mean([float(loss) for loss in losses]))


def _step_function(job: Job, optimizer: Any) -> Callable[..., Any]:
    variables = job.trained

    def step(*batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = job.loss(*batch) + tf.add_n([tf.constant(0.0), *job.model.losses])
        # A table's gradient is nearly dense once the loss reads hundreds of its rows.
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)]
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return tf.function(step, reduce_retracing=True)  # type: ignore[no-any-return]


def _learning_rate(step: int, steps: int, settings: TrainingSettings) -> float:
    warm = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    return settings.learning_rate * warm * max(_LAST_RATE_SHARE, 1 - step / steps)


def _optimizer(settings: TrainingSettings) -> Any:
    """Return Adam, which keeps an exponential moving average of the weights where `average` asks for one."""
    if not settings.average:
        return keras.optimizers.Adam(settings.learning_rate)
    return keras.optimizers.Adam(settings.learning_rate, use_ema=True, ema_momentum=settings.average)


def _next_state(
    job: Job,
    optimizer: Any,
    before: checkpoint.State,
    record: dict[str, float],
    settings: TrainingSettings,
    trained: checkpoint.Arrays,
) -> checkpoint.State:
    """Return what training goes on from: the weights `trained`, and of those that were ranked with, the kept.

    The two differ where the ranked ones are an average.
    """
    records = [*before.records, record]
    keeps = settings.keep == "last" or _best(records) == len(records) - 1
    kept = _values(job) if keeps else before.kept
    return checkpoint.State(trained, [variable.numpy() for variable in optimizer.variables], kept, records)


def _values(job: Job) -> checkpoint.Arrays:
    return [variable.numpy() for variable in job.variables]


def _best(records: list[dict[str, float]]) -> int:
    return int(np.argmax([record["valid_ndcg@10"] for record in records])) if records else -1


def _stale(records: list[dict[str, float]], patience: int) -> bool:
    return patience > 0 and len(records) - 1 - _best(records) >= patience


def _begin(callbacks: Sequence[Any], model: Any, optimizer: Any) -> None:
    # TF-MOT's pruning callback reads its step from `model.optimizer.iterations`.
    model.optimizer = optimizer
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()


def _put(variables: Sequence[Any], arrays: Sequence[NDArray[Any]]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _key(job: Job, split: Split, settings: TrainingSettings) -> str:
    shapes = [[variable.name, list(variable.shape)] for variable in job.variables]
    events = [len(split.train.items), int(split.train.items.sum(dtype=np.int64))]
    return digest_of([msgspec.to_builtins(settings), shapes, events, job.about])


def _figures(record: dict[str, float]) -> str:
    return (
        f"loss {record['loss']:.3f}, validation NDCG@10 {record['valid_ndcg@10']:.4f}, "
        f"HR@10 {record['valid_hr@10']:.4f}, {record['cpu_s']:.0f} CPU s"
    )


class _Clock:
    """CPU and wall seconds since the first epoch began, earlier processes included."""

    def __init__(self, records: list[dict[str, float]]) -> None:
        last = records[-1] if records else {"cpu_s": 0.0, "wall_s": 0.0}
        self.cpu_s, self.wall_s = last["cpu_s"] - time.process_time(), last["wall_s"] - time.monotonic()

    def read(self) -> dict[str, float]:
        return {"cpu_s": self.cpu_s + time.process_time(), "wall_s": self.wall_s + time.monotonic()}
