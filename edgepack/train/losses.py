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


def _logits(hidden: Any, targets: Any, negatives: Any, table: Any) -> tuple[Any, Any]:
    positive = tf.reduce_sum(hidden * tf.gather(table, targets), axis=1, keepdims=True)
    negative = tf.matmul(hidden, tf.gather(table, negatives), transpose_b=True)
    hit = tf.equal(targets[:, None], negatives[None, :])
    return positive, tf.where(hit, _HIT_LOGIT, negative)


def _corrected(positive: Any, negative: Any, negatives: Any, table: Any) -> Any:
    log_q = math.log((table.shape[0] - 1) / negatives.shape[0])
    return tf.concat([positive, negative + log_q], axis=1)
