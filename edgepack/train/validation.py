"""The quick look at ranking quality between epochs, on a fixed sample of users."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgepack.data.types import EvaluationSet, Sequences
from edgepack.evaluate.ranking import evaluate


def sample(users: EvaluationSet, count: int, seed: int) -> EvaluationSet:
    """Draw at most `count` users that have targets; the same ones for the same seed."""
    able = np.flatnonzero(np.diff(users.targets.offsets))
    chosen = np.sort(np.random.default_rng(seed).permutation(able)[:count])
    return EvaluationSet(_taken(users.history, chosen), _taken(users.targets, chosen))


def rate(
    users: EvaluationSet, chunks: Iterable[NDArray[np.float32]], *, filter_seen: bool
) -> dict[str, float]:
    """Return `valid_ndcg@10` and `valid_hr@10` over the whole catalogue; zeros when there are no users."""
    if not users.history.users:
        return {"valid_ndcg@10": 0.0, "valid_hr@10": 0.0}
    found = evaluate(chunks, users, (10,), filter_seen)
    return {f"valid_{metric}": found.mean(metric) for metric in ("ndcg@10", "hr@10")}


def _taken(sequences: Sequences, users: NDArray[np.int64]) -> Sequences:
    counts = np.diff(sequences.offsets)[users]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    places = np.repeat(sequences.offsets[users] - offsets[:-1], counts) + np.arange(offsets[-1])
    return sequences.at(np.asarray(places, np.int64), offsets)
