"""Golden cases: invented rows whose answers an app can check on its first start.

Histories are drawn from item popularity by a seed, queries from the n-grams' likewise, never taken from a
user, so that no shopper's history or search leaves the training machine inside a bundle.
"""

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.bundle.manifest import GoldenCase, Goldens
from edgepack.errors import MeasureError
from edgepack.rows import Rows

CASES = 16
RANDOM_CASES = 32
RANDOM_OVERLAP = 0.99
"""The least mean overlap@K of the random cases between a bundle's goldens and any runtime of its target."""
_POOLS = (256, 1_024, 4_096)
_GAP_FACTOR = 4.0


def invented_histories(
    popularity: NDArray[np.float64], length: int, seed: int, count: int
) -> NDArray[np.int32]:
    """Return int32 [count, length] histories, right-aligned, of 1 to `length` items; row 0 is empty.

    `popularity` float64 [V + 1] weighs the items; index 0 is never drawn. No item repeats in a row.
    """
    rng = np.random.default_rng(seed)
    weights = popularity.astype(np.float64).copy()
    weights[0] = 0
    weights[1:] += 1
    weights /= weights.sum()
    longest = min(length, len(weights) - 1)
    histories = np.zeros((count, length), np.int32)
    for row in range(1, count):
        size = int(rng.integers(1, longest + 1))
        histories[row, length - size :] = rng.choice(len(weights), size=size, replace=False, p=weights)
    return histories


class Ngrams(NamedTuple):
    """What a search model's queries are drawn from: float64 [buckets + 1] how common each id is, and Q."""

    popularity: NDArray[np.float64]
    length: int


def invented_rows(
    popularity: NDArray[np.float64], length: int, seed: int, count: int, ngrams: Ngrams | None = None
) -> Rows:
    """Return `history` as `invented_histories` and, with `ngrams`, `query` int32 [count, Q] beside it.

    Queries are drawn likewise and left-aligned. Row 0 is empty; every fourth row has no query, and another
    fourth no history.
    """
    histories = invented_histories(popularity, length, seed, count)
    if ngrams is None:
        return {"history": histories}
    queries = invented_histories(ngrams.popularity, ngrams.length, seed + 1, count)[:, ::-1].copy()
    queries[::4] = 0
    histories[2::4] = 0
    return {"history": histories, "query": queries}


def top_k(
    scores: NDArray[np.float32], histories: NDArray[np.int32], k: int, filter_seen: bool
) -> NDArray[np.int32]:
    """Return int32 [n, k]: best items first, equal scores by lower index, index 0 never.

    `scores` float32 [n, V + 1]; items of `histories` int32 [n, L] are left out if `filter_seen`.
    """
    masked = _allowed(scores, histories, filter_seen)
    return np.argsort(-masked, axis=1, kind="stable")[:, :k].astype(np.int32)


def find_goldens(
    answer: Callable[[Rows], NDArray[np.float32]],
    popularity: NDArray[np.float64],
    length: int,
    seed: int,
    *,
    k: int,
    filter_seen: bool,
    largest_difference: float,
    runtime: str,
    ngrams: Ngrams | None = None,
) -> Goldens:
    """Invent rows until some have clearly separated scores, as `answer` gives them, up to 4,096.

    `answer` takes `invented_rows` and gives float32 [n, V + 1]. Raises MeasureError as `make_goldens`.
    """

    def made(pool: int) -> Goldens:
        rows = invented_rows(popularity, length, seed, pool, ngrams)
        return make_goldens(
            rows,
            answer(rows),
            k=k,
            filter_seen=filter_seen,
            largest_difference=largest_difference,
            runtime=runtime,
        )

    for pool in _POOLS[:-1]:
        with contextlib.suppress(MeasureError):
            return made(pool)
    return made(_POOLS[-1])


def make_goldens(
    rows: Rows,
    scores: NDArray[np.float32],
    *,
    k: int,
    filter_seen: bool,
    largest_difference: float,
    runtime: str,
) -> Goldens:
    """Choose golden cases from what the target's own runtime answered.

    A case must be told apart from runtime noise: each of its K places is further than four times
    `largest_difference` from the next. The empty row 0 is always a case; its list is cut where its gaps
    end. Raises MeasureError when no other row qualifies.
    """
    histories = rows["history"]
    masked = _allowed(scores, histories, filter_seen)
    order = np.argsort(-masked, axis=1, kind="stable")[:, : k + 1]
    ranked = np.take_along_axis(masked, order, axis=1)
    clear = np.diff(-ranked, axis=1) > _GAP_FACTOR * largest_difference
    sure = [row for row in range(1, len(histories)) if clear[row].all()][: CASES - 1]
    if not sure:
        raise MeasureError(
            "goldens",
            f"none of {len(histories)} invented histories has {k} clearly separated scores",
            allowed=f"places must differ by more than {_GAP_FACTOR * largest_difference:.3g}",
            remedy="Use a format with finer scores for this target (its scores tie).",
        )
    cut = [int(np.argmin(clear[0])) if not clear[0].all() else k]

    def case(row: int, places: int) -> GoldenCase:
        return GoldenCase(
            history=_unpadded(histories[row]),
            query=_unpadded(rows["query"][row]) if "query" in rows else (),
            top_k=tuple(int(item) for item in order[row, :places]),
            scores=tuple(float(score) for score in ranked[row, :places]),
        )

    cases = [case(0, cut[0]), *(case(row, k) for row in sure)]
    rest = [row for row in range(1, len(histories)) if row not in set(sure)][:RANDOM_CASES]
    return Goldens(
        k=k,
        runtime=runtime,
        largest_difference=largest_difference,
        cases=tuple(cases),
        random=tuple(case(row, k) for row in rest),
    )


def failures(goldens: Goldens, scores: NDArray[np.float32], filter_seen: bool, length: int) -> list[str]:
    """Return what differs between `goldens` and fresh `scores` of its cases then its random histories.

    `scores` float32 [cases + random, V + 1] in that order; an empty list means that all holds.
    """
    histories = encoded(goldens, length)["history"]
    best = top_k(scores, histories, goldens.k, filter_seen)
    count = len(goldens.cases)
    wrong = [
        f"case {row} gives {best[row][: len(case.top_k)].tolist()} instead of {list(case.top_k)}"
        for row, case in enumerate(goldens.cases)
        if best[row][: len(case.top_k)].tolist() != list(case.top_k)
    ]
    shares = [
        len(set(case.top_k) & set(best[count + row].tolist())) / goldens.k
        for row, case in enumerate(goldens.random)
    ]
    if shares and np.mean(shares) < RANDOM_OVERLAP:
        found = f"{len(shares)} random histories agree at overlap {np.mean(shares):.3f}"
        wrong.append(f"{found}, less than {RANDOM_OVERLAP}")
    return wrong


def encoded(goldens: Goldens, length: int, query_length: int = 0) -> Rows:
    """Return the rows of all cases, then of all random ones: `history` int32 [n, length].

    With `query_length` also `query` int32 [n, query_length].
    """
    cases = (*goldens.cases, *goldens.random)
    histories = np.zeros((len(cases), length), np.int32)
    for row, case in enumerate(cases):
        if case.history:
            histories[row, length - len(case.history) :] = case.history
    if not query_length:
        return {"history": histories}
    queries = np.zeros((len(cases), query_length), np.int32)
    for row, case in enumerate(cases):
        queries[row, : len(case.query)] = case.query
    return {"history": histories, "query": queries}


def _allowed(
    scores: NDArray[np.float32], histories: NDArray[np.int32], filter_seen: bool
) -> NDArray[np.float32]:
    masked = scores.astype(np.float32).copy()
    if filter_seen:
        np.put_along_axis(masked, histories.astype(np.int64), -np.inf, axis=1)
    masked[:, 0] = -np.inf
    return masked


def _unpadded(ids: NDArray[np.int32]) -> tuple[int, ...]:
    return tuple(int(value) for value in ids if value)
