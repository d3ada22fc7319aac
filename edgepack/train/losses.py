"""The losses, each over the rows of a batch that have a target."""

import math
from collections.abc import Callable
from typing import Any

from edgepack.keras2 import tf

_HIT_LOGIT = -1e9


def sampled_softmax(hidden: Any, targets: Any, negatives: Any, table: Any) -> Any:
    """Return the mean softmax loss over the target and uniform `negatives` shared by the batch.

    `hidden` float32 [P, d], `targets` int32 [P], `negatives` int32 [n], `table` float32 [V + 1, d]. The
    negatives' logits get log(V / n), the log-q correction, so that they stand for the whole catalogue
    (Klenitskiy & Vasilev, RecSys 2023); a negative that is the target is taken out.
    """
    logits = _corrected(*_logits(hidden, targets, negatives, table), negatives, table)
    return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - logits[:, 0])


def full_softmax(hidden: Any, targets: Any, negatives: Any, table: Any) -> Any:
    """Return the mean softmax loss over the whole catalogue; `negatives` are not used."""
    del negatives
    return catalogue_loss(tf.matmul(hidden, table, transpose_b=True), targets)


def binary(hidden: Any, targets: Any, negatives: Any, table: Any) -> Any:
    """Return the mean log loss of sigmoid(hidden . row), target and negatives weighing the same."""
    positive, negative = _logits(hidden, targets, negatives, table)
    return binary_pairs(tf.concat([positive, negative], axis=1))


LOSSES: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "sampled-softmax": sampled_softmax,
    "full-softmax": full_softmax,
    "bce": binary,
}


def catalogue_loss(scores: Any, targets: Any) -> Any:
    """Return the mean softmax loss of `scores` float32 [B, V + 1] for `targets` int32 [B]."""
    found = tf.gather(scores, targets, batch_dims=1)
    return tf.reduce_mean(tf.reduce_logsumexp(scores, axis=1) - found)


def softmax_pairs(logits: Any) -> Any:
    """Return the mean softmax loss of `logits` [B, 1 + C] whose first column is the target."""
    return tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - logits[:, 0])


def binary_pairs(logits: Any) -> Any:
    """Return the mean log loss of `logits` [B, 1 + C] whose first column is the target.

    The target weighs as much as all of its negatives: against their plain sum the constant "no"
    is so good an answer that small models stay with it.
    """
    losses = tf.nn.softplus(-logits[:, 0]) + tf.reduce_mean(tf.nn.softplus(logits[:, 1:]), axis=1)
    return tf.reduce_mean(losses)


PAIR_LOSSES: dict[str, Callable[[Any], Any]] = {"sampled-softmax": softmax_pairs, "bce": binary_pairs}


def soft_labels(student: Any, teacher: Any, temperature: float) -> Any:
    """Return T^2 KL(softmax(teacher / T) | softmax(student / T)), the mean over rows of float32 [n, C].

    T^2 keeps the gradient's size at every temperature T (Hinton et al., 2015).
    """
    wanted = tf.nn.log_softmax(teacher / temperature)
    apart = wanted - tf.nn.log_softmax(student / temperature)
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(tf.exp(wanted) * apart, axis=1))


def ranked_together(student: Any, teacher: Any, top: int) -> Any:
    """Return the soft-label loss over the items that either ranks among its `top` best; float32 [n, V].

    The teacher's best alone would not do: what the student wrongly puts above them would go unseen
    (RCE-KD, arXiv 2509.20989).
    """
    items, known = top_of_both(student, teacher, top)
    own, theirs = (tf.where(known, tf.gather(s, items, batch_dims=1), _HIT_LOGIT) for s in (student, teacher))
    return soft_labels(own, theirs, 1.0)


def top_of_both(student: Any, teacher: Any, top: int) -> tuple[Any, Any]:
    """Return (columns int32 [n, 2 top], bool [n, 2 top]): the teacher's best, then the student's.

    A student's item that is the teacher's, too, is False: it counts once. `top` is at most the number
    of columns.
    """
    top = min(top, student.shape[1])
    theirs, own = (tf.math.top_k(tf.stop_gradient(s), top).indices for s in (teacher, student))
    twice = tf.reduce_any(own[:, :, None] == theirs[:, None, :], axis=2)
    return tf.concat([theirs, own], axis=1), tf.concat([tf.ones_like(twice), ~twice], axis=1)


def hint(student: Any, teacher: Any) -> Any:
    """Return the mean squared distance of `student` float32 [n, d] from `teacher`, in its variances."""
    spread = tf.reduce_mean(tf.math.reduce_variance(teacher, axis=0))
    return tf.reduce_mean(tf.math.squared_difference(student, teacher)) / spread


def _logits(hidden: Any, targets: Any, negatives: Any, table: Any) -> tuple[Any, Any]:
    positive = tf.reduce_sum(hidden * tf.gather(table, targets), axis=1, keepdims=True)
    negative = tf.matmul(hidden, tf.gather(table, negatives), transpose_b=True)
    hit = tf.equal(targets[:, None], negatives[None, :])
    return positive, tf.where(hit, _HIT_LOGIT, negative)


def _corrected(positive: Any, negative: Any, negatives: Any, table: Any) -> Any:
    log_q = math.log((table.shape[0] - 1) / negatives.shape[0])
    return tf.concat([positive, negative + log_q], axis=1)
