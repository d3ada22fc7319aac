"""The arrays that every later stage works on: ragged sequences of dense item indices."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.rows import Rows


class Sequences(NamedTuple):
    """Users' items, oldest first, laid end to end.

    `items` int32 [events], values 1..V; `offsets` int64 [users + 1], user u owns
    items[offsets[u]:offsets[u + 1]]; `baskets` int32 [events], equal within one basket of one user and
    rising with time (every event its own basket when the log has none). `queries` int32 [events]: the row
    of `Split.queries` that holds what the user had searched for, 0 = nothing; None when the log does not
    say.
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    baskets: NDArray[np.int32]
    queries: NDArray[np.int32] | None = None

    def at(self, events: NDArray[np.int64] | slice, offsets: NDArray[np.int64]) -> "Sequences":
        """Return these `events`, laid out anew by `offsets`."""
        queries = None if self.queries is None else self.queries[events]
        return Sequences(self.items[events], offsets, self.baskets[events], queries)

    def of(self, user: int) -> NDArray[np.int32]:
        """Return the items of one user, int32 [n]."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @property
    def users(self) -> int:
        """How many users these are."""
        return len(self.offsets) - 1


class EvaluationSet(NamedTuple):
    """What is known of each evaluated user (`history`) and what they took next (`targets`).

    Both have the same users in the same order; one target a user under leave-one-out, the new items
    of the basket under next-basket.
    """

    history: Sequences
    targets: Sequences


class Split(NamedTuple):
    """Training sequences and the two evaluation sets; `item_count` is V, the catalogue's size.

    `tested` int64 [test users] numbers the test users among all users of the log; a split that was read back
    from a file does not know it. `queries` int32 [texts + 1, Q] are the ids of the search texts, row 0 all
    padding; None without any.
    """

    train: Sequences
    valid: EvaluationSet
    test: EvaluationSet
    item_count: int
    tested: NDArray[np.int64] | None = None
    queries: NDArray[np.int32] | None = None


def rows(split: Split, users: EvaluationSet, length: int) -> Rows:
    """Return what a model is fed for `users`, one row each: `history` int32 [users, length], 0 = padding.

    Where the log holds searches also `query` int32 [users, Q]: the one that led to the user's first target.
    """
    fed = {"history": padded(users.history, length)}
    if split.queries is not None and users.targets.queries is not None:
        fed["query"] = split.queries[users.targets.queries[users.targets.offsets[:-1]]]
    return fed


def padded(history: Sequences, length: int) -> NDArray[np.int32]:
    """Return int32 [users, length]: the newest `length` items, right-aligned, 0 = padding."""
    counts = np.minimum(np.diff(history.offsets), length)
    rows = np.repeat(np.arange(len(counts)), counts)
    back = np.concatenate([np.arange(n, 0, -1) for n in counts]) if len(counts) else counts
    out = np.zeros((len(counts), length), np.int32)
    out[rows, length - back] = history.items[history.offsets[rows + 1] - back]
    return out
