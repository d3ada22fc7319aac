"""Where an item table begins if not at random: on the axes of EASE, or on those of who stands beside whom.

EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019) scores item j by the sum of
-P_ij / P_jj over the history's items i, P the inverse of the ridged Gram matrix. Up to a factor for each
item that is the matrix of partial correlations -P_ij / sqrt(P_ii P_jj): symmetric, so that its eigenvectors
make ONE table for looking up and for scoring. Two things are known that EASE does not use. Items that a user
has are never recommended, so the diagonal is free: it is refitted by the axes themselves, and they spend
nothing on it. And an assortment turns over: each row is scaled by how late customers came to its item.

The constants of that start were chosen on validation users of Online Retail
(tests/proofs/results/teachers-tried.md), where all of them lie on a plateau.

The other start needs no inverse and knows the order: eigenvectors of the normalized graph of items that are
taken within five events of one another (Laplacian eigenmaps, Belkin & Niyogi, 2003). A training begins with
alike items side by side; where most items are rare, it does not find that out itself before it overfits.
"""

from collections.abc import Callable

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from edgepack.data.types import Sequences, Split
from edgepack.errors import ConfigError
from edgepack.keras2 import keras
from edgepack.models.folding import layer_of
from edgepack.models.graphs import Graphs, HistoryPool
from edgepack.train.baselines import gram_inverse
from edgepack.train.batches import first_takes

_RIDGE = 15.0
"""Ten times the baseline's: a few axes carry less noise when the small ones are gone already."""
_DIAGONAL_FITS = 3
_TREND_PRIOR, _TREND_POWER = 10.0, 0.75
_PRIOR_SHARE = 0.1
_SQUARED_LENGTH = 0.5
_NEAREST = ((1, 1.0), (2, 0.6), (3, 0.4), (4, 0.3), (5, 0.2))
"""How many events apart two items are, and what that is worth."""
_DEGREE_PRIOR = 2.0
_RANDOM_SHARE, _LENGTHS = 0.6, 1.35
_NOWHERE = 1e-3


def begin(graphs: Graphs, split: Split, start: str) -> None:
    """Begin `graphs.training` where the setting `start` says. Raises ConfigError when it cannot."""
    STARTS[start](graphs, split)


def from_ease(graphs: Graphs, split: Split) -> None:
    """Begin `graphs.training`, of the family mf, at EASE's axes: table, user layer and prior.

    The user layer passes the pooled history on, and its bias, the prior, is a tenth of the mean user.
    Raises ConfigError for a model of any other make, LimitError above 20,000 items.
    """
    pool, user = (layer_of(graphs.training, name) for name in ("pool", "user"))
    if graphs.tied is None or not isinstance(pool, HistoryPool) or not isinstance(user, keras.layers.Dense):
        raise ConfigError(
            'training: start = "ease"',
            f"does not fit the model '{graphs.serving.name}'",
            allowed="it needs one tied table whose rows are summed over the history, as in the family mf",
            remedy='Choose model.family = "mf", or leave start out.',
        )
    table = graphs.training.get_layer(graphs.table).embeddings
    rows = ease_rows(split.train, split.item_count, table.shape[1])
    table.assign(rows)
    user.kernel.assign(np.eye(table.shape[1]))
    user.bias.assign(_PRIOR_SHARE * _mean_user(split.train, rows, pool.alpha))


def ease_rows(train: Sequences, item_count: int, width: int) -> NDArray[np.float32]:
    """Return the table W float32 [V + 1, width], row 0 zero: W_j . (sum of a history's rows) scores item j.

    The fit of W W' weighs an item pair by the fourth root of both items' customers. Rows have a mean squared
    length of 1/2: scores then stand near the logits that a softmax over the catalogue wants, for trainings
    that go on from here. Raises LimitError above 20,000 items.
    """
    inverse = gram_inverse(train, item_count, _RIDGE)
    scale = np.sqrt(np.diag(inverse))
    new = first_takes(train, _owner(train))
    customers = np.bincount(train.items[new], minlength=item_count + 1)[1:]
    weight = np.maximum(customers, 1) ** 0.25
    axes = _axes(-inverse / np.outer(scale, scale) * np.outer(weight, weight), width) / weight[:, None]
    axes *= trend(train, item_count)[1:, None] ** _TREND_POWER
    rows = np.zeros((item_count + 1, width), np.float32)
    rows[1:, : axes.shape[1]] = axes * np.sqrt(_SQUARED_LENGTH / np.mean(np.sum(axes**2, axis=1)))
    return rows


def trend(train: Sequences, item_count: int) -> NDArray[np.float64]:
    """Return how late each item is, float64 [V + 1], 1 = as the mean item; index 0 means nothing.

    It is the share of an item's customers who took it first in their last basket of several; every item
    starts with ten customers of the mean share, for few say little.
    """
    owner = _owner(train)
    first, last = (train.baskets[edge[owner]] for edge in (train.offsets[:-1], train.offsets[1:] - 1))
    new = first_takes(train, owner)
    late = new & (train.baskets == last) & (last > first)
    if not late.any():
        return np.ones(item_count + 1)
    counts, lates = (np.bincount(train.items[taken], minlength=item_count + 1) for taken in (new, late))
    mean = late.sum() / new.sum()
    return np.asarray((lates / mean + _TREND_PRIOR) / (counts + _TREND_PRIOR), np.float64)


def _owner(train: Sequences) -> NDArray[np.int64]:
    return np.repeat(np.arange(train.users), np.diff(train.offsets))


def _axes(symmetric: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return A float64 [V, k] whose A A' is next to `symmetric` off the diagonal, its longest column first.

    k is `width`, or V - 1 if that is less. The diagonal of `symmetric` is overwritten.
    """
    start, diagonal = np.ones(len(symmetric)), np.zeros(len(symmetric))
    for _ in range(_DIAGONAL_FITS + 1):
        np.fill_diagonal(symmetric, diagonal)
        values, vectors = eigsh(symmetric, k=min(width, len(symmetric) - 1), which="LA", v0=start)
        axes = np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)), np.float64)
        diagonal = (axes**2).sum(axis=1)
    return axes[:, ::-1]


def _mean_user(train: Sequences, rows: NDArray[np.float32], alpha: float) -> NDArray[np.float64]:
    """Return the mean of the users' pooled histories, float64 [d]; users without events are left out."""
    sizes = np.diff(train.offsets)
    taken = np.repeat(np.maximum(sizes, 1) ** -alpha, sizes)
    weights = np.bincount(train.items, taken, len(rows))
    return np.asarray(weights @ rows / max((sizes > 0).sum(), 1), np.float64)


def from_neighbours(graphs: Graphs, split: Split) -> None:
    """Begin the item table of `graphs.training` at the axes of `neighbour_axes`.

    A row keeps a share of its random start, which tells items apart that have the same neighbours, and is as
    long as random rows are or a third longer; an item without neighbours keeps its random row whole.
    Raises ConfigError for a model without a table of items.
    """
    if not graphs.table:
        raise ConfigError(
            'training: start = "neighbours"',
            f"the model '{graphs.serving.name}' is not of a family",
            allowed="it begins the item table of a family of models/",
            remedy="Leave start out.",
        )
    table = graphs.training.get_layer(graphs.table).embeddings
    rows = table.numpy()
    axes = neighbour_axes(split.train, split.item_count, rows.shape[1])
    length = np.linalg.norm(axes, axis=1, keepdims=True)
    known = np.flatnonzero(length[:, 0] > _NOWHERE)
    usual = np.sqrt(np.mean(np.sum(rows[1:] ** 2, axis=1)))
    rows[known] *= _RANDOM_SHARE
    rows[known] += _LENGTHS * usual * axes[known] / length[known]
    table.assign(rows)


def neighbour_axes(train: Sequences, item_count: int, width: int) -> NDArray[np.float64]:
    """Return the leading eigenvectors of who stands beside whom, float64 [V + 1, width], row 0 zero.

    They are those of D^(-1/2) C D^(-1/2), each times the root of its eigenvalue: C counts how often two items
    were taken within five events by one user, the nearer the more, D are its row sums and two.
    """
    counts = _beside(train, item_count)
    degree = np.asarray(counts.sum(axis=1)).ravel() + _DEGREE_PRIOR
    scale = scipy.sparse.diags(1 / np.sqrt(degree))
    k = min(width, item_count - 1)
    values, vectors = eigsh(scale @ counts @ scale, k=k, which="LA", v0=np.ones(item_count + 1))
    axes = np.zeros((item_count + 1, width))
    axes[:, :k] = vectors[:, ::-1] * np.sqrt(np.maximum(values[::-1], 0.0))
    axes[0] = 0.0
    return axes


def _beside(train: Sequences, item_count: int) -> scipy.sparse.csr_matrix:
    owner = _owner(train)
    shape = (item_count + 1, item_count + 1)
    counts = scipy.sparse.csr_matrix(shape, dtype=np.float64)
    for lag, worth in _NEAREST:
        same = owner[lag:] == owner[:-lag]
        before, after = train.items[:-lag][same], train.items[lag:][same]
        counts += scipy.sparse.csr_matrix((np.full(len(before), worth), (before, after)), shape=shape)
    return counts + counts.T


STARTS: dict[str, Callable[[Graphs, Split], None]] = {"ease": from_ease, "neighbours": from_neighbours}
