"""Training examples, drawn anew each epoch from (seed, epoch) alone, so that a resumed run sees the same."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.data.types import EvaluationSet, Sequences, Split
from edgepack.errors import DataError

Ids = NDArray[np.int32]

EMPTY_SHARE = 0.02
"""Share of extra rows whose history is empty and whose target is any event: they teach the prior."""


class Examples(NamedTuple):
    """`history` int32 [N, L], right-aligned, and `targets` int32 [N, L]: what follows each position.

    Target 0 means that a position teaches nothing. `queries` int32 [N, L]: the row of `Split.queries` that
    led to each target; None when the log holds no searches.
    """

    history: Ids
    targets: Ids
    queries: Ids | None = None


def epoch_generator(seed: int, epoch: int, stream: int = 0) -> np.random.Generator:
    """Return the random numbers of one epoch; `stream` keeps uses of them apart."""
    return np.random.default_rng([seed, epoch, stream])


def learns_baskets(split: Split) -> bool:
    """True when the next basket is what is to be predicted, False when it is the next line.

    So it is when some basket holds several items and no evaluated target comes out of the basket that
    its history ends with.
    """
    train = split.train
    inside = np.ones(len(train.items), bool)
    inside[train.offsets[:-1][np.diff(train.offsets) > 0]] = False
    several = np.any((train.baskets[1:] == train.baskets[:-1]) & inside[1:])
    return bool(several) and not any(_continues(users) for users in (split.valid, split.test))


def _continues(users: EvaluationSet) -> bool:
    history, targets = users
    able = (np.diff(history.offsets) > 0) & (np.diff(targets.offsets) > 0)
    last, first = history.offsets[1:][able] - 1, targets.offsets[:-1][able]
    return bool(np.any(history.baskets[last] == targets.baskets[first]))


def windows(
    train: Sequences, length: int, generator: np.random.Generator, *, newest: float = 0.5
) -> Examples:
    """Return one window a user: item by item, the next item is the target.

    A user with more than `length` events gives the newest ones with chance `newest`, else a window
    that ends anywhere later than that. Users without events are left out. Raises DataError when
    nobody has any.
    """
    places, starts = _window_places(train, length, generator, newest)
    history = _at(train.items, places - 1, starts)
    queries = None if train.queries is None else _at(train.queries, places, starts)
    return _with_empty(train, Examples(history, _at(train.items, places, starts), queries), generator)


def cut(examples: Examples, generator: np.random.Generator, *, per_row: int) -> tuple[Ids, Ids]:
    """Return (history int32 [N, L], target int32 [N]): every row cut at `per_row` positions with a target.

    What follows the position is taken away and the rest moved to the right.
    """
    rows = np.flatnonzero(examples.targets.any(axis=1)).repeat(per_row)
    lottery = generator.random((len(rows), examples.targets.shape[1])) * (examples.targets[rows] > 0)
    position = lottery.argmax(axis=1)
    length = examples.history.shape[1]
    places = np.arange(length) - (length - 1 - position[:, None])
    history = np.take_along_axis(examples.history[rows], np.maximum(places, 0), axis=1)
    return np.where(places >= 0, history, 0).astype(np.int32), examples.targets[rows, position]


def basket_windows(
    train: Sequences,
    length: int,
    generator: np.random.Generator,
    *,
    newest: float = 0.5,
    same_basket: float = 0.5,
    only_new: bool = True,
) -> Examples:
    """Return one window a user, basket to basket: lines are shuffled inside their basket.

    A position's target is an item of the user's next basket (with `only_new`, one new to them) or, with
    chance `same_basket` and wherever the next basket offers none, the next line of its own basket: lines
    bought together say much about lines bought next, and most users have few baskets.
    Raises DataError when nobody has any events.
    """
    owner = np.repeat(np.arange(train.users), np.diff(train.offsets))
    order = np.lexsort((generator.random(len(owner)), train.baskets, owner))
    shuffled = train._replace(items=train.items[order], baskets=train.baskets[order])
    follow = _next_basket_targets(shuffled, owner, generator, only_new)
    beside = np.where(_same_basket_next(shuffled, owner), np.append(shuffled.items[1:], 0), 0)
    keep = (follow > 0) & ((generator.random(len(follow)) >= same_basket) | (beside == 0))
    target_after = np.where(keep, follow, beside).astype(np.int32)

    places, starts = _window_places(train, length, generator, newest)
    history = _at(shuffled.items, places, starts)
    return _with_empty(train, Examples(history, _at(target_after, places, starts)), generator)


def _same_basket_next(train: Sequences, owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    same = (owner[1:] == owner[:-1]) & (train.baskets[1:] == train.baskets[:-1])
    return np.append(same, False)


def _next_basket_targets(
    train: Sequences, owner: NDArray[np.int64], generator: np.random.Generator, only_new: bool
) -> Ids:
    """For every event an item drawn from its user's next basket (its new items), 0 where there is none."""
    starts_basket = np.append(True, ~_same_basket_next(train, owner)[:-1])
    basket = np.cumsum(starts_basket) - 1
    new = np.flatnonzero(first_takes(train, owner)) if only_new else np.arange(len(owner))
    first_new = np.searchsorted(basket[new], np.arange(basket[-1] + 3))
    following = basket + 1
    same_user = np.append(owner[starts_basket], -1)[following] == owner
    how_many = np.where(same_user, first_new[following + 1] - first_new[following], 0)
    drawn = first_new[following] + (generator.random(len(owner)) * how_many).astype(np.int64)
    drawn = np.minimum(drawn, len(new) - 1)
    return np.where(how_many > 0, train.items[new[drawn]], 0).astype(np.int32)


def first_takes(train: Sequences, owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where a user takes an item for the first time, bool [events]; `owner` int64 [events]."""
    pairs = owner * (int(train.items.max()) + 1) + train.items
    first = np.zeros(len(pairs), bool)
    first[np.unique(pairs, return_index=True)[1]] = True
    return first


def _window_places(
    train: Sequences, length: int, generator: np.random.Generator, newest: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the events in one window a user [N, L] and each user's first event, before which is padding."""
    starts, counts = _owners(train)
    spare = np.maximum(counts - length, 0)
    back = np.where(generator.random(len(counts)) < newest, 0, generator.integers(0, spare + 1))
    return (starts + counts - back)[:, None] - length + np.arange(length), starts


def _owners(train: Sequences) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (first event, number of events) of the users who have any."""
    counts = np.diff(train.offsets)
    if not len(train.items):
        raise DataError(
            "training split", "no user has any events", remedy="Give a longer log, or split off less of it."
        )
    return train.offsets[:-1][counts > 0], counts[counts > 0]


def _at(items: Ids, places: NDArray[np.int64], starts: NDArray[np.int64]) -> Ids:
    """Return items at `places`, 0 for places before a row's start."""
    inside = places >= starts[:, None]
    return np.where(inside, items[np.where(inside, places, 0)], 0).astype(np.int32)


def _with_empty(train: Sequences, examples: Examples, generator: np.random.Generator) -> Examples:
    rows, length = examples.history.shape
    extra = max(1, round(rows * EMPTY_SHARE))
    targets = np.zeros((extra, length), np.int32)
    targets[:, -1] = train.items[generator.integers(0, len(train.items), extra)]
    none = np.zeros((extra, length), np.int32)
    order = generator.permutation(rows + extra)
    return Examples(
        np.concatenate([examples.history, none])[order],
        np.concatenate([examples.targets, targets])[order],
        None if examples.queries is None else np.concatenate([examples.queries, none])[order],
    )
