"""Four baselines that every model is held against: popularity, item-kNN, Markov chain, EASE; one for search.

They know a user by the history alone, as the models do, and are fitted on the training sequences in
seconds. A scorer breaks ties by popularity: its own ties would otherwise count against it.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from edgepack.data.types import Sequences, Split
from edgepack.errors import LimitError

Scores = NDArray[np.float32]
Scorer = Callable[[Sequences], Scores]
"""Takes n histories and returns scores float32 [n, V + 1]; column 0 means nothing."""

EASE_MAX_ITEMS = 20_000
_RECENCY = 0.8
_MARKOV_LAGS = 3
_EASE_RIDGE = 1.5


def popularity(train: Sequences, item_count: int) -> Scorer:
    """Score items by their number of training events, the same for everyone."""
    prior = _popularity(train, item_count)

    def scorer(histories: Sequences) -> Scores:
        return np.repeat(prior[None, :], histories.users, axis=0)

    return scorer


def item_knn(train: Sequences, item_count: int) -> Scorer:
    """Score items by their cosine with the history's items, each weighing 0.8 of the next newer one."""
    users = _user_items(train, item_count)
    length = np.sqrt(np.maximum(np.asarray(users.sum(axis=0)).ravel(), 1.0))
    unit = users @ scipy.sparse.diags(1.0 / length)
    cosine = (unit.T @ unit).tocsr().astype(np.float32)
    cosine.setdiag(0.0)
    prior = _popularity(train, item_count)

    def scorer(histories: Sequences) -> Scores:
        weights = _RECENCY ** _age(histories).astype(np.float64)
        return _dense(_weighted(histories, weights, item_count) @ cosine, prior)

    return scorer


def markov_chain(train: Sequences, item_count: int) -> Scorer:
    """Score items by how often they followed each of the last three items at that distance.

    The share of the followers one, two and three events on, summed with weights 1, 1/2 and 1/3.
    """
    steps = [_followers(train, lag, item_count) for lag in range(1, _MARKOV_LAGS + 1)]
    prior = _popularity(train, item_count)

    def scorer(histories: Sequences) -> Scores:
        age = _age(histories)
        lags = [_weighted(histories, age == lag, item_count) for lag in range(_MARKOV_LAGS)]
        total = sum(
            newest @ step / (lag + 1) for lag, (newest, step) in enumerate(zip(lags, steps, strict=True))
        )
        return _dense(total, prior)

    return scorer


def ease(train: Sequences, item_count: int) -> Scorer:
    """Score items by EASE: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.

    The ridge weight is 1.5 times the mean number of users per item. Raises as `gram_inverse` does.
    """
    inverse = gram_inverse(train, item_count, _EASE_RIDGE)
    weights = np.zeros((item_count + 1, item_count + 1), np.float32)
    weights[1:, 1:] = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    prior = _popularity(train, item_count)

    def scorer(histories: Sequences) -> Scores:
        return _dense(_user_items(histories, item_count).astype(np.float32) @ weights, prior)

    return scorer


def gram_inverse(train: Sequences, item_count: int, ridge: float) -> NDArray[np.float64]:
    """Return the inverse of X'X + r I, float64 [V, V], X the 0/1 matrix of who took what: EASE's P.

    r is `ridge` times the mean number of users per item. Raises LimitError above 20,000 items: the dense
    item-by-item inverse would not fit.
    """
    if reason := why_not("ease", item_count):
        raise LimitError("EASE", reason, remedy=f"Use it on up to {EASE_MAX_ITEMS} items.")
    users = _user_items(train, item_count)[:, 1:]
    gram = (users.T @ users).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge * users.nnz / item_count
    return np.asarray(np.linalg.inv(gram), np.float64)


def query_match(split: Split) -> Callable[[NDArray[np.int32]], Scores]:
    """Return a scorer of `query` int32 [n, Q]: the lexical baseline, for logs that hold searches.

    An item is the text of all training searches that led to it. Items score by the cosine of TF-IDF vectors
    (log(1 + count) x log(V / items with it), Salton & Buckley 1988) over the hashed n-grams; equal ones, and
    all when nothing was typed, by popularity.
    """
    assert split.queries is not None and split.train.queries is not None  # noqa: S101  the caller's to check
    buckets = int(split.queries.max(initial=0))
    grams = _gram_counts(split.queries[split.train.queries], buckets)
    events = np.arange(len(split.train.items))
    shape = (split.item_count + 1, len(events))
    ones = np.ones(len(events), np.float32)
    documents = scipy.sparse.csr_matrix((ones, (split.train.items, events)), shape=shape) @ grams
    rarity = np.log(split.item_count / np.maximum((documents > 0).sum(axis=0), 1)).A1
    documents.data = np.log1p(documents.data)
    items = _unit_rows(documents @ scipy.sparse.diags(rarity))
    prior = _popularity(split.train, split.item_count)

    def scorer(query: NDArray[np.int32]) -> Scores:
        asked = _unit_rows(_gram_counts(query, buckets) @ scipy.sparse.diags(rarity))
        return _dense((asked @ items.T).astype(np.float32), prior)

    return scorer


def _gram_counts(queries: NDArray[np.int32], buckets: int) -> scipy.sparse.csr_matrix:
    """Return which n-grams each row of `queries` int32 [n, Q] holds: 0 or 1, [n, buckets + 1]."""
    rows, places = np.nonzero(queries)
    shape = (len(queries), buckets + 1)
    ones = np.ones(len(rows), np.float32)
    return scipy.sparse.csr_matrix((ones, (rows, queries[rows, places])), shape=shape)


def _unit_rows(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    length = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1
    return (scipy.sparse.diags(1.0 / np.where(length > 0, length, 1.0)) @ matrix).tocsr()


BASELINES: dict[str, Callable[[Sequences, int], Scorer]] = {
    "popularity": popularity,
    "item-knn": item_knn,
    "markov-chain": markov_chain,
    "ease": ease,
}


def why_not(name: str, item_count: int) -> str:
    """Return "" if the baseline can be fitted on that many items, else the text of its row in a table."""
    if name != "ease" or item_count <= EASE_MAX_ITEMS:
        return ""
    # The Gram matrix and its inverse in float64, the weights in float32.
    return f"not run: needs {item_count**2 * (8 + 8 + 4) / 1e9:.0f} GB"


def _popularity(train: Sequences, item_count: int) -> Scores:
    counts = np.bincount(train.items, minlength=item_count + 1).astype(np.float32)
    counts[0] = 0.0
    return np.asarray(counts / max(float(counts.max()), 1.0), np.float32)


def _owner(sequences: Sequences) -> NDArray[np.int64]:
    return np.repeat(np.arange(sequences.users), np.diff(sequences.offsets))


def _age(sequences: Sequences) -> NDArray[np.int64]:
    """Return how many of its user's events came after each event, int64 [events]."""
    return sequences.offsets[1:][_owner(sequences)] - 1 - np.arange(len(sequences.items))


def _weighted(
    sequences: Sequences, weights: NDArray[np.float64] | NDArray[np.bool_], item_count: int
) -> scipy.sparse.csr_matrix:
    rows = _owner(sequences)
    shape = (sequences.users, item_count + 1)
    return scipy.sparse.csr_matrix((weights.astype(np.float32), (rows, sequences.items)), shape=shape)


def _user_items(sequences: Sequences, item_count: int) -> scipy.sparse.csr_matrix:
    """Return the 0/1 matrix of who took what, float64 [users, V + 1]."""
    taken = _weighted(sequences, np.ones(len(sequences.items), bool), item_count).astype(np.float64)
    taken.data[:] = 1.0
    return taken


def _followers(train: Sequences, lag: int, item_count: int) -> scipy.sparse.csr_matrix:
    """Return, for each item, the share of each item among those `lag` events later: [V + 1, V + 1]."""
    owner = _owner(train)
    same = owner[lag:] == owner[:-lag]
    pairs = (train.items[:-lag][same], train.items[lag:][same])
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(pairs[0]), np.float32), pairs), shape=(item_count + 1, item_count + 1)
    )
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    return (scipy.sparse.diags((1.0 / total).astype(np.float32)) @ counts).tocsr()


def _dense(scores: scipy.sparse.csr_matrix | Scores, prior: Scores) -> Scores:
    dense = scores if isinstance(scores, np.ndarray) else scores.toarray()
    return np.asarray(dense + np.float32(1e-6) * prior, np.float32)
