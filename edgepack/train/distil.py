"""Distillation: a student learns what users took, and how a trained teacher ranks the whole catalogue.

The teacher is asked in the training step, about a few hundred positions of the batch's own windows: the
windows are drawn anew in every epoch, and its answers for all of MovieLens-1M's events would be 6.7 GB. At
so many positions the whole catalogue can be compared. The student's best items are then always among the
compared ones; where they are not, cross-entropy bounds no NDCG (RCE-KD, arXiv 2509.20989).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from edgepack.errors import ConfigError
from edgepack.keras2 import keras, tf
from edgepack.models.graphs import Graphs, dropout_step
from edgepack.train import losses
from edgepack.train.settings import Distillation

_SALT = 0x64697374


class Teacher(NamedTuple):
    """A trained model that is asked and never changed. `identity` tells it from any other.

    `scores`: histories int32 [n, length] -> float32 [n, V + 1]. Of a model that encodes a history
    `hidden`: int32 [B, length] -> float32 [B, length, d], scored by the rows of `table` float32
    [V + 1, d]; both None otherwise.
    """

    identity: str
    length: int
    scores: Callable[[Any], Any]
    hidden: Callable[[Any], Any] | None = None
    table: Any = None


class Guide(NamedTuple):
    """A teacher, and how much it has to say."""

    teacher: Teacher
    how: Distillation


def teacher_of(graphs: Graphs, length: int, identity: str) -> Teacher:
    """Return `graphs`, both with the same trained weights and reading `length` items, as a teacher."""

    def scores(histories: Any) -> Any:
        return graphs.serving(histories, training=False)

    if graphs.training is graphs.serving or graphs.pairwise or graphs.cloze:
        return Teacher(identity, length, scores)
    table = tf.constant(graphs.training.get_layer(graphs.table).embeddings.numpy())
    return Teacher(identity, length, scores, lambda rows: graphs.training(rows, training=False), table)


def together(teachers: Sequence[Teacher], identity: str) -> Teacher:
    """Return several trainings of one model as a single teacher: the mean of their scores.

    That is the geometric mean of what they think likely (Hinton et al., 2015). States and tables stand side
    by side, so that one product still gives the scores.
    """
    count = len(teachers)
    if count == 1:
        return teachers[0]
    hidden, table = None, None
    if all(one.hidden is not None for one in teachers):
        table = tf.concat([one.table for one in teachers], axis=1)

        def hidden(rows: Any) -> Any:
            return tf.concat([one.hidden(rows) for one in teachers], axis=2) / count  # type: ignore[misc]

    def scores(histories: Any) -> Any:
        return tf.add_n([one.scores(histories) for one in teachers]) / count

    return Teacher(identity, teachers[0].length, scores, hidden, table)


def about(guide: Guide | None) -> object:
    """Return JSON that tells one way of distilling from another; None without a teacher."""
    return None if guide is None else [guide.teacher.identity, msgspec.to_builtins(guide.how)]


def window(length: int, guide: Guide | None) -> int:
    """Return how many items of a history a batch must show: what the longer-sighted model reads."""
    return length if guide is None else max(length, guide.teacher.length)


def why_not_asked(graphs: Graphs) -> str:
    """Return why no teacher can be asked for a student of these graphs, "" when one can."""
    found = "fills gaps" if graphs.cloze else "reads a search" if len(graphs.serving.inputs) > 1 else ""
    return found and f"it {found}, and a teacher is asked about histories"


def refuse_other_inputs(graphs: Graphs, guide: Guide | None) -> None:
    """Raise ConfigError when a teacher is to guide a student that reads more or other than a history."""
    if guide is not None and (reason := why_not_asked(graphs)):
        raise ConfigError(
            f"distillation of {graphs.serving.name}",
            reason,
            allowed="sasrec, gru4rec, mf, neumf and models of your own can be students",
            remedy="Choose another family, or recipes without `distil` and `guided`.",
        )


def refuse_hints(guide: Guide | None) -> None:
    """Raise ConfigError when hints are wanted of a student that gives scores and no hidden states."""
    if guide is not None and guide.how.hints:
        raise _no_hints("the student gives scores and no hidden states")


def projection(guide: Guide | None, length: int, width: int, seed: int) -> list[Any]:
    """Return what the hints train beside a student that reads `length` items and has states of `width`.

    That is a matrix float32 [width, teacher's width], or nothing without hints.
    Raises ConfigError when the teacher has no hidden states to give hints of.
    """
    if guide is None or not guide.how.hints:
        return []
    if guide.teacher.hidden is None:
        raise _no_hints("the teacher gives scores and no hidden states")
    if guide.teacher.length < length:
        raise _no_hints("the teacher reads fewer items than the student")
    shape = (width, guide.teacher.table.shape[1])
    return [tf.Variable(keras.initializers.Orthogonal(seed=seed)(shape), name="hints")]


def encoder_loss(
    guide: Guide,
    history: Any,
    length: int,
    hidden: Any,
    places: Any,
    table: Any,
    projected: list[Any],
    hard: Any,
) -> Any:
    """Return the loss of a student that encodes a history; `hard` is its loss on what users took.

    `history` int32 [B, H] is as long as the longer-sighted of the two models wants it, the student sees
    its newest `length`; `hidden` float32 [P, d] are the student's states at `places` int64 [P, 2] (row,
    column of the student's window); `table` float32 [V + 1, d].
    """
    chosen = _chosen(places, guide.how.positions)
    hidden, places = tf.gather(hidden, chosen), tf.gather(places, chosen)
    states, wanted = _asked(guide.teacher, history, length, places)
    found = compared(guide.how, tf.matmul(hidden, table[1:], transpose_b=True), wanted)
    if projected:
        found += guide.how.hints * losses.hint(tf.matmul(hidden, projected[0]), states)
    return guide.how.hard * hard + found


def scores_loss(guide: Guide, history: Any, scores: Any, hard: Any) -> Any:
    """Return the loss of a student that gives `scores` float32 [B, V + 1] for cut histories int32 [B, H]."""
    wanted = tf.stop_gradient(guide.teacher.scores(history[:, -guide.teacher.length :]))
    return guide.how.hard * hard + compared(guide.how, scores[:, 1:], wanted[:, 1:])


def pair_loss(
    guide: Guide,
    history: Any,
    candidates: Any,
    ask: Callable[[Any], Any],
    hard: Callable[[Any], Any],
) -> Any:
    """Return the loss of a student that scores given items: `ask` takes int32 [B, C], `hard` its logits.

    Beside the `candidates` int32 [B, 1 + n], the target first, it is asked about the teacher's best.
    The n uniform ones stand for the whole catalogue (log V / n on both sides).
    """
    wanted = tf.stop_gradient(guide.teacher.scores(history[:, -guide.teacher.length :]))
    items, negatives = wanted.shape[1] - 1, candidates.shape[1] - 1
    best = tf.math.top_k(wanted[:, 1:], min(guide.how.top, items)).indices + 1
    asked = tf.concat([candidates, best], axis=1)
    found = ask(asked)
    column = tf.range(tf.shape(asked)[1])
    uniform = (column > 0) & (column <= negatives)
    log_q = tf.where(uniform, math.log(items / negatives), 0.0)
    wanted = tf.gather(wanted, asked, batch_dims=1)
    hard_loss = hard(found[:, : negatives + 1])
    return guide.how.hard * hard_loss + compared(guide.how, found + log_q, wanted + log_q)


def compared(how: Distillation, student: Any, teacher: Any) -> Any:
    """Return the weighted losses of `student` scores float32 [n, V] against the `teacher`'s."""
    total = tf.constant(0.0)
    if how.soft:
        total += how.soft * losses.soft_labels(student, teacher, how.temperature)
    if how.ranking:
        total += how.ranking * losses.ranked_together(student, teacher, how.top)
    return total


def start(student: Graphs, guide: Guide) -> None:
    """Begin the student's item table with the teacher's best approximation of its width.

    That is the teacher's table in the basis of its greatest singular values. Nothing happens where either
    model has no tied table, or `guide.how.start` is "random".
    """
    teacher = guide.teacher
    if guide.how.start == "random" or teacher.table is None or not student.tied or student.pairwise:
        return
    table = student.training.get_layer(student.table).embeddings
    rows, width = teacher.table.numpy(), table.shape[1]
    if width == rows.shape[1]:
        table.assign(rows)
        return
    _, _, basis = np.linalg.svd(rows[1:].astype(np.float64), full_matrices=False)
    columns = rows @ basis[:width].T.astype(np.float32)
    table.assign(np.pad(columns, ((0, 0), (0, width - columns.shape[1]))))


def _chosen(places: Any, count: int) -> Any:
    """Draw which of `places` the teacher is asked about, from the training step alone: int32 [count]."""
    seed = tf.stack([tf.constant(_SALT, tf.int64), dropout_step()])
    return tf.argsort(tf.random.stateless_uniform(tf.shape(places)[:1], seed, alg="philox"))[:count]


def _asked(teacher: Teacher, history: Any, length: int, places: Any) -> tuple[Any, Any]:
    """Return (hidden float32 [n, d] or None, scores float32 [n, V]) at `places` of the student's window."""
    rows, back = places[:, 0], length - places[:, 1]
    if teacher.hidden is None or teacher.length < length:
        return None, tf.stop_gradient(teacher.scores(_cut(history, rows, back, teacher.length))[:, 1:])
    states = teacher.hidden(history[:, -teacher.length :])
    states = tf.stop_gradient(tf.gather_nd(states, tf.stack([rows, teacher.length - back], axis=1)))
    return states, tf.matmul(states, teacher.table[1:], transpose_b=True)


def _cut(history: Any, rows: Any, back: Any, length: int) -> Any:
    """Return int32 [n, length]: each of `rows` as it was `back` - 1 items ago, right-aligned."""
    padded = tf.pad(history, [[0, 0], [length, 0]])
    first = tf.shape(padded, tf.int64)[1] - back - length + 1
    columns = first[:, None] + tf.range(length, dtype=tf.int64)
    return tf.gather(tf.gather(padded, rows), columns, batch_dims=1)


def _no_hints(found: str) -> ConfigError:
    return ConfigError(
        "distillation: hints",
        found,
        allowed="hints need a teacher and a student that encode a history, and it must read as many items",
        remedy="Set distillation.hints = 0, or choose families that encode a history, as sasrec and mf do.",
    )
