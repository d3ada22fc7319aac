"""Ranking on the whole catalogue: ranks with ties against the model, metrics per user, top-k lists."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.data.types import EvaluationSet, Sequences
from edgepack.errors import MeasureError

Scores = NDArray[np.float32]
UNRANKED = int(np.iinfo(np.int64).max)
"""The rank of a target that is filtered because the user has it already: beyond every k."""

_BLOCK = 1 << 24
"""Comparisons held in memory at once."""


class Evaluation(NamedTuple):
    """Metrics of every user, float64 [users] by name (`ndcg@10`), and their top 10, int32 [users, 10]."""

    metrics: dict[str, NDArray[np.float64]]
    top10: NDArray[np.int32]

    def mean(self, metric: str) -> float:
        """Return the mean of one metric over the users."""
        return float(self.metrics[metric].mean())


def evaluate(
    score_chunks: Iterable[Scores],
    evaluation: EvaluationSet,
    ks: tuple[int, ...] = (10,),
    filter_seen: bool = True,
) -> Evaluation:
    """Rank the whole catalogue for every user and return the metrics, one chunk of users at a time.

    `score_chunks` are float [n, V + 1], users in the order of `evaluation`, any n. Always there: ndcg@k,
    hr@k, recall@k, mrr, auc; where users have several targets also precision@k and f1@k. Raises
    MeasureError for NaN scores, and when the chunks do not cover exactly the users.
    """
    begin = 0
    ranked: list[NDArray[np.int64]] = []
    negatives: list[NDArray[np.int64]] = []
    tops: list[NDArray[np.int32]] = []
    for scores in score_chunks:
        end = begin + len(scores)
        if end > evaluation.history.users:
            break
        history = chunk(evaluation.history, begin, end)
        targets = chunk(evaluation.targets, begin, end)
        ranked.append(ranks(scores, history, targets, filter_seen))
        negatives.append(_negatives(scores.shape[1], history, targets, filter_seen))
        tops.append(top_k(scores, history, 10, filter_seen))
        begin = end
    else:
        end = begin
    if end != evaluation.history.users or not tops:
        found = f"scores of {end} users for {evaluation.history.users}"
        raise MeasureError("ranking", found, remedy="Score each evaluated user once, in order.")
    metrics = _metrics(np.concatenate(ranked), np.concatenate(negatives), evaluation.targets.offsets, ks)
    return Evaluation(metrics, np.concatenate(tops))


def chunk(sequences: Sequences, begin: int, end: int) -> Sequences:
    """Return the users begin..end as sequences of their own."""
    offsets = sequences.offsets[begin : end + 1]
    events = slice(int(offsets[0]), int(offsets[-1]))
    return sequences.at(events, offsets - offsets[0])


def chunks(sequences: Sequences, users: int) -> Iterable[Sequences]:
    """Yield the sequences in chunks of at most `users` users."""
    for begin in range(0, sequences.users, users):
        yield chunk(sequences, begin, min(begin + users, sequences.users))


def ranks(
    scores: Scores, history: Sequences, targets: Sequences, filter_seen: bool = True
) -> NDArray[np.int64]:
    """Return the rank (1 = best) of each target, int64 [targets], among all items 1..V.

    `scores` is float [n, V + 1]; column 0 is ignored. With `filter_seen` the history's items leave the
    race, and a target among them is UNRANKED. An item that scores like a target stands before it;
    targets that tie take different ranks. Raises MeasureError for NaN scores or a target beyond V.
    """
    allowed = _masked(scores, history, filter_seen)
    if targets.items.size and int(targets.items.max()) >= scores.shape[1]:
        raise MeasureError(
            "ranking",
            f"item {int(targets.items.max())} and scores for {scores.shape[1] - 1} items",
            remedy="Score with the model of this vocabulary.",
        )
    rows = _owner(targets)
    score = allowed[rows, targets.items]
    out = np.empty(len(rows), np.int64)
    step = max(1, _BLOCK // scores.shape[1])
    for begin in range(0, len(rows), step):
        part = slice(begin, begin + step)
        out[part] = (allowed[rows[part]] >= score[part, None]).sum(axis=1)
    out -= _earlier_ties(rows, score)
    # Filtered items carry -inf; a model may not give that itself to an item it can recommend.
    out[score == -np.inf] = UNRANKED
    return out


def top_k(scores: Scores, history: Sequences, k: int, filter_seen: bool = True) -> NDArray[np.int32]:
    """Return the best `k` items, int32 [n, k], equal scores by lower index; 0 where fewer are left."""
    allowed = _masked(scores, history, filter_seen)
    k_found = min(k, scores.shape[1] - 1)
    edge = -np.partition(-allowed, k_found - 1, axis=1)[:, k_found - 1 : k_found]
    above = allowed > edge
    ties = allowed == edge
    # Only as many of the items at the edge as there are places left, lowest index first.
    chosen = above | (ties & (np.cumsum(ties, axis=1) <= k_found - above.sum(axis=1, keepdims=True)))
    items = np.nonzero(chosen)[1].reshape(len(scores), k_found)
    found = np.take_along_axis(allowed, items, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    items = np.where(found == -np.inf, 0, items)
    top = np.zeros((len(scores), k), np.int32)
    top[:, :k_found] = np.take_along_axis(items, order, axis=1)
    return top


def overlap(top_a: NDArray[np.int32], top_b: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return, for each user, the share of list a that is in list b: float64 [users]; 0 is no item."""
    shared = (top_a[:, :, None] == top_b[:, None, :]).any(axis=2) & (top_a > 0)
    listed = np.maximum((top_a > 0).sum(axis=1), 1)
    return np.asarray(shared.sum(axis=1) / listed, np.float64)


def _owner(sequences: Sequences) -> NDArray[np.int64]:
    return np.repeat(np.arange(sequences.users), np.diff(sequences.offsets))


def _masked(scores: Scores, history: Sequences, filter_seen: bool) -> Scores:
    if np.isnan(scores).any():
        user = int(np.isnan(scores).any(axis=1).argmax())
        raise MeasureError(
            "ranking", f"the scores of user {user} hold NaN", remedy="Drop the artifact: it is broken."
        )
    allowed = np.array(scores, np.float32)
    allowed[:, 0] = -np.inf
    if filter_seen:
        allowed[_owner(history), history.items] = -np.inf
    return allowed


def _earlier_ties(rows: NDArray[np.int64], score: Scores) -> NDArray[np.int64]:
    """Count, for each target, the targets of its user with the same score that were counted before it."""
    order = np.lexsort((score, rows))
    begins = np.ones(len(rows), bool)
    begins[1:] = (np.diff(rows[order]) != 0) | (score[order][1:] != score[order][:-1])
    first = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
    earlier = np.empty(len(rows), np.int64)
    earlier[order] = np.arange(len(rows)) - first
    return earlier


def _negatives(width: int, history: Sequences, targets: Sequences, filter_seen: bool) -> NDArray[np.int64]:
    """Count the items of each user that are in the race and no target, int64 [users]."""
    out = np.zeros((history.users, width), bool)
    out[:, 0] = True
    if filter_seen:
        out[_owner(history), history.items] = True
    out[_owner(targets), targets.items] = True
    return np.asarray(width - out.sum(axis=1), np.int64)


def _metrics(
    ranked: NDArray[np.int64], negatives: NDArray[np.int64], offsets: NDArray[np.int64], ks: tuple[int, ...]
) -> dict[str, NDArray[np.float64]]:
    counts = np.diff(offsets)
    rows = np.repeat(np.arange(len(counts)), counts)
    found: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        found |= _at_k(ranked, rows, counts, k)
    best = np.full(len(counts), UNRANKED, np.int64)
    np.minimum.at(best, rows, ranked)
    found["mrr"] = np.where(best == UNRANKED, 0.0, 1.0 / best)
    found["auc"] = _auc(ranked, rows, counts, negatives)
    return found


def _at_k(
    ranked: NDArray[np.int64], rows: NDArray[np.int64], counts: NDArray[np.int64], k: int
) -> dict[str, NDArray[np.float64]]:
    users = len(counts)
    hit = ranked <= k
    gain = np.where(hit, 1.0 / np.log2(np.where(hit, ranked, 1) + 1.0), 0.0)
    ideal = np.concatenate([[1.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    ideal[0] = np.inf
    hits = np.bincount(rows, hit, users)
    recall = hits / np.maximum(counts, 1)
    found = {
        f"ndcg@{k}": np.bincount(rows, gain, users) / ideal[np.minimum(counts, k)],
        f"hr@{k}": (hits > 0).astype(np.float64),
        f"recall@{k}": recall,
    }
    if (counts > 1).any():
        # With one target a user these are hr@k once more, divided by a constant.
        found[f"precision@{k}"] = hits / k
        found[f"f1@{k}"] = 2 * hits / (k + counts)
    return found


def _auc(
    ranked: NDArray[np.int64],
    rows: NDArray[np.int64],
    counts: NDArray[np.int64],
    negatives: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the share of (target, other item) pairs in the right order, float64 [users]."""
    order = np.lexsort((ranked, rows))
    place = np.empty(len(ranked), np.int64)
    place[order] = np.arange(len(ranked)) - (np.cumsum(counts) - counts)[rows[order]] + 1
    above = np.where(ranked == UNRANKED, negatives[rows], ranked - place)
    pairs = np.maximum(counts * negatives, 1)
    return np.asarray(1.0 - np.bincount(rows, above, len(counts)) / pairs, np.float64)
