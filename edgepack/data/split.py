"""Splits a clean log by time: leave-one-out, or next basket; keeps splits in files; calibration samples."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgepack.data.clean import Interactions
from edgepack.data.types import EvaluationSet, Sequences, Split, padded
from edgepack.errors import DataError
from edgepack.rows import Rows

_ARRAYS = ("train", "valid_history", "valid_targets", "test_history", "test_targets")


def leave_one_out(interactions: Interactions, new_only: bool = True) -> Split:
    """Test on each user's last item, validate on the one before, train on the rest.

    With `new_only` the targets are the last two items that the user had not taken before, since an item
    that was seen is filtered and can never be hit. Users with fewer than three such items serve training
    only. Raises DataError when no user is left to test on.
    """
    sequences = interactions.sequences
    events = np.arange(len(sequences.items))
    return _split(interactions, events, _new(sequences) if new_only else np.ones(len(events), bool), 3)


def next_basket(interactions: Interactions) -> Split:
    """Test on the new items of each user's last basket that has any, validate on the one before.

    New means not in the user's earlier baskets. A user with two such baskets is tested on and not
    validated on; one with a single basket serves training only. Raises DataError when no user is left.
    """
    sequences = interactions.sequences
    owner = _owner(sequences)
    starts = np.concatenate([[True], np.diff(sequences.baskets) != 0]) if len(owner) else np.zeros(0, bool)
    starts[sequences.offsets[:-1]] = True
    return _split(interactions, np.cumsum(starts) - 1, _new(sequences), 2)


SPLITS = {"leave-one-out": leave_one_out, "next-basket": next_basket}


def _owner(sequences: Sequences) -> NDArray[np.int64]:
    return np.repeat(np.arange(sequences.users), np.diff(sequences.offsets))


def _new(sequences: Sequences) -> NDArray[np.bool_]:
    """Whether each event is the first of its user with its item."""
    pair = _owner(sequences) * (int(sequences.items.max(initial=0)) + 1) + sequences.items
    new = np.zeros(len(pair), bool)
    new[np.unique(pair, return_index=True)[1]] = True
    return new


def _split(
    interactions: Interactions, group: NDArray[np.int64], new: NDArray[np.bool_], fewest: int
) -> Split:
    """Cut each user before the last and the last but one group of events that holds a new one.

    `fewest`: how many such groups a user needs to be tested on. `group` numbers the events' groups,
    rising over the whole log.
    """
    sequences = interactions.sequences
    owner = _owner(sequences)
    groups, first = np.unique(group[new], return_index=True)
    start = np.asarray(np.searchsorted(group, groups), np.int64)
    holder = owner[new][first]
    ends = np.searchsorted(holder, np.arange(sequences.users), side="right")
    counts = np.bincount(holder, minlength=sequences.users)
    tested = np.flatnonzero((counts >= fewest) & (start[ends - 1] > sequences.offsets[:-1]))
    if not len(tested):
        raise DataError(
            "splitting the log",
            f"none of {sequences.users} users has the {fewest} purchases that a test needs",
            remedy="Give a longer log, or loosen the cleaning rules.",
        )
    valid_at = start[np.maximum(ends - 2, 0)]
    checked = tested[(counts[tested] >= max(fewest, 3))]
    cut = sequences.offsets[1:].copy()
    cut[tested] = start[ends[tested] - 1]
    cut[checked] = valid_at[checked]
    train = _prefixes(sequences, np.arange(sequences.users), cut)
    test = _evaluation(sequences, tested, start[ends[tested] - 1], group, new)
    valid = _evaluation(sequences, checked, valid_at[checked], group, new)
    return Split(train, valid, test, interactions.item_count, tested)


def _prefixes(sequences: Sequences, users: NDArray[np.int64], ends: NDArray[np.int64]) -> Sequences:
    """Return the events of `users` before the position `ends` of each."""
    begins = sequences.offsets[users]
    return _taken(sequences, _ranges(begins, ends), ends[: len(users)] - begins)


def _ranges(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = ends - begins
    shift = np.repeat(begins - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return np.asarray(np.arange(int(counts.sum())) + shift, np.int64)


def _taken(sequences: Sequences, events: NDArray[np.int64], counts: NDArray[np.int64]) -> Sequences:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return sequences.at(events, offsets)


def _evaluation(
    sequences: Sequences,
    users: NDArray[np.int64],
    starts: NDArray[np.int64],
    group: NDArray[np.int64],
    new: NDArray[np.bool_],
) -> EvaluationSet:
    ends = np.searchsorted(group, group[starts], side="right") if len(users) else starts
    events = _ranges(starts, ends)
    events_new = events[new[events]]
    counts = np.bincount(np.searchsorted(starts, events_new, side="right") - 1, minlength=len(users))
    return EvaluationSet(_prefixes(sequences, users, starts), _taken(sequences, events_new, counts))


def cold_targets(split: Split) -> int:
    """Return how many test targets never occur in training; no model can know them, they count as misses."""
    known = np.zeros(split.item_count + 1, bool)
    known[split.train.items] = True
    return int((~known[split.test.targets.items]).sum())


def calibration_rows(split: Split, length: int, count: int, seed: int) -> Rows:
    """Return rows of training users, each history cut at a random event: `history` int32 [count, length].

    The random cut makes short histories as likely as they are in use; the arguments and nothing else
    decide the sample. Where the log holds searches also `query` int32 [count, Q]: the search that led to the
    event after the cut, none where the cut is at the end.
    """
    generator = np.random.default_rng(seed)
    sizes = np.diff(split.train.offsets)
    users = generator.choice(np.flatnonzero(sizes), count)
    ends = split.train.offsets[users] + generator.integers(1, sizes[users] + 1)
    fed = {"history": padded(_prefixes(split.train, users, ends), length)}
    if split.queries is not None and split.train.queries is not None:
        following = split.train.queries[np.minimum(ends, len(split.train.items) - 1)]
        fed["query"] = split.queries[np.where(ends < split.train.offsets[users + 1], following, 0)]
    return fed


def save_split(split: Split, vocabulary: tuple[str, ...], folder: Path) -> None:
    """Write `split.npz` and `vocabulary.json` into `folder`; equal splits make equal bytes."""
    parts = (split.train, *split.valid, *split.test)
    arrays = {
        f"{name}_{field}": getattr(part, field)
        for name, part in zip(_ARRAYS, parts, strict=True)
        for field in Sequences._fields
        if getattr(part, field) is not None
    }
    if split.queries is not None:
        arrays["queries"] = split.queries
    np.savez(folder / "split.npz", item_count=np.int64(split.item_count), **arrays)
    (folder / "vocabulary.json").write_text(json.dumps(list(vocabulary), ensure_ascii=True))


def load_split(folder: Path) -> tuple[Split, tuple[str, ...]]:
    """Read back what `save_split` wrote. Raises DataError when either file is missing or damaged."""
    try:
        with np.load(folder / "split.npz", allow_pickle=False) as kept:
            queries = kept["queries"] if "queries" in kept.files else None
            fields = Sequences._fields if queries is not None else Sequences._fields[:-1]
            parts = [Sequences(*(kept[f"{name}_{field}"] for field in fields)) for name in _ARRAYS]
            item_count = int(kept["item_count"])
        vocabulary = tuple(json.loads((folder / "vocabulary.json").read_text()))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            str(folder), f"no whole split there: {error}", remedy="Run the data stage again."
        ) from error
    valid, test = EvaluationSet(*parts[1:3]), EvaluationSet(*parts[3:5])
    return Split(parts[0], valid, test, item_count, queries=queries), vocabulary
