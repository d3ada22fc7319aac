"""Groups of test users, and what each of them loses: a mean can hide that a few pay for it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.data.types import Sequences
from edgepack.evaluate.paired import drops, estimate
from edgepack.evaluate.ranking import Evaluation, overlap
from edgepack.results import GroupQuality

ACTIVITY_GROUPS = 4
POPULARITY = ("head", "middle", "tail")
POPULARITY_SHARES = (0.5, 0.8)
"""The head's items hold the first half of the training events, head and middle eight tenths of them."""
LEAST_DECLARED_USERS = 10
"""Declared groups with fewer users go together: a figure of a few people would tell of one of them."""


class Grouping(NamedTuple):
    """Users by what they share: `member` int64 [users] numbers `names`, -1 for a user in no group."""

    by: str
    names: tuple[str, ...]
    member: NDArray[np.int64]


def by_activity(history: Sequences) -> Grouping:
    """Group users by the length of their history, cut at its quartiles; equal quartiles make one group."""
    lengths = np.diff(history.offsets)
    shares = np.arange(1, ACTIVITY_GROUPS) / ACTIVITY_GROUPS
    cuts = np.unique(np.quantile(lengths, shares, method="lower"))
    cuts = cuts[cuts < lengths.max()]
    starts = [int(lengths.min()), *(int(cut) + 1 for cut in cuts)]
    ends = [*(int(cut) for cut in cuts), int(lengths.max())]
    names = tuple(f"{start:,} to {end:,} events" for start, end in zip(starts, ends, strict=True))
    return Grouping("history length", names, np.searchsorted(cuts, lengths, side="left").astype(np.int64))


def popularity_classes(counts: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return head (0), middle (1) or tail (2) of each item, int8 [V + 1], by `counts` of training events.

    Items stand in the order of their counts, and POPULARITY_SHARES of all events cut them; an item that
    training never saw is of the tail. Index 0, the padding, is -1.
    """
    order = 1 + np.argsort(-counts[1:], kind="stable")
    before = np.concatenate([[0], np.cumsum(counts[order])[:-1]]) / max(int(counts[1:].sum()), 1)
    classes = np.full(len(counts), -1, np.int8)
    classes[order] = np.searchsorted(POPULARITY_SHARES, before, side="right")
    classes[1:][counts[1:] == 0] = len(POPULARITY) - 1
    return classes


def by_popularity(targets: Sequences, counts: NDArray[np.int64]) -> Grouping:
    """Group users by the class of their target; of several targets the one of median class decides."""
    classes = popularity_classes(counts)[targets.items]
    owner = np.repeat(np.arange(targets.users), np.diff(targets.offsets))
    ordered = classes[np.lexsort((classes, owner))]
    middle = targets.offsets[:-1] + (np.diff(targets.offsets) - 1) // 2
    return Grouping("target's popularity", POPULARITY, ordered[middle].astype(np.int64))


def declared(by: str, labels: Sequence[str]) -> Grouping:
    """Group users by a label each, in the order of the labels; "" is no group.

    Groups with fewer than LEAST_DECLARED_USERS go together as "others", and are left out where they still
    are fewer.
    """
    names, codes = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
    counts = np.bincount(codes, minlength=len(names))
    kept = [code for code, name in enumerate(names) if name and counts[code] >= LEAST_DECLARED_USERS]
    rare = [code for code, name in enumerate(names) if name and counts[code] < LEAST_DECLARED_USERS]
    numbers = np.full(len(names), -1, np.int64)
    numbers[kept] = np.arange(len(kept))
    told = [str(names[code]) for code in kept]
    if counts[rare].sum() >= LEAST_DECLARED_USERS:
        numbers[rare] = len(kept)
        told.append(f"others ({len(rare)} groups)")
    return Grouping(by, tuple(told), numbers[codes])


def losses(
    before: Evaluation, after: Evaluation, groupings: Sequence[Grouping], seed: int
) -> tuple[GroupQuality, ...]:
    """Return what every group of users loses from `before`, the float model, to `after`; both paired.

    Empty groups are left out. Raises MeasureError as `paired.drops` does.
    """
    shared = overlap(before.top10, after.top10)
    return tuple(
        _loss(grouping.by, name, before.metrics, after.metrics, shared, rows, seed)
        for grouping in groupings
        for place, name in enumerate(grouping.names)
        if len(rows := np.flatnonzero(grouping.member == place))
    )


def _loss(
    by: str,
    name: str,
    before: Mapping[str, NDArray[np.float64]],
    after: Mapping[str, NDArray[np.float64]],
    shared: NDArray[np.float64],
    rows: NDArray[np.int64],
    seed: int,
) -> GroupQuality:
    ours = {metric: values[rows] for metric, values in before.items()}
    served = {metric: int((values > 0).sum()) for metric, values in ours.items()}
    able = {metric: values for metric, values in ours.items() if served[metric]}
    theirs = {metric: after[metric][rows] for metric in able}
    return GroupQuality(
        by=by,
        group=name,
        users=len(rows),
        served=served,
        drops=drops(able, theirs, seed) if able else {},
        overlap_at_10=estimate(shared[rows], seed),
    )
