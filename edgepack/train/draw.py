"""Turns a split into the batches of an epoch, in the four shapes that models learn from."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.data.types import Split
from edgepack.train import batches
from edgepack.train.settings import TrainingSettings

_NEGATIVES_STREAM, _QUERIES_STREAM, _MASKS_STREAM = 1, 2, 3

Arrays = tuple[NDArray[Any], ...]
Draw = Callable[[int], Iterator[Arrays]]


def position_batches(split: Split, length: int, settings: TrainingSettings) -> Draw:
    """Return epoch -> batches (history int32 [B, L], targets int32 [B, L], negatives int32 [n]).

    Where the log holds searches each batch ends with query int32 [B, L, Q]: the one that led to each target,
    or nothing, with chance `query_dropout`, so that the model can recommend without a search.
    """

    def draw(epoch: int) -> Iterator[Arrays]:
        examples = _examples(split, length, settings, batches.epoch_generator(settings.seed, epoch))
        negatives = _negatives(split, settings, epoch)
        queries = _queries(split, settings, epoch)
        for rows in _slices(len(examples.history), settings.batch_size):
            yield examples.history[rows], examples.targets[rows], next(negatives), *queries(examples, rows)

    return draw


def cut_batches(split: Split, length: int, settings: TrainingSettings) -> Draw:
    """Return epoch -> batches (history int32 [B, L], target int32 [B])."""

    def draw(epoch: int) -> Iterator[Arrays]:
        generator = batches.epoch_generator(settings.seed, epoch)
        examples = _examples(split, length, settings, generator)
        history, target = batches.cut(examples, generator, per_row=settings.cuts_per_user)
        order = generator.permutation(len(target))
        for rows in _slices(len(target), settings.batch_size):
            yield history[order[rows]], target[order[rows]]

    return draw


def cloze_batches(split: Split, length: int, settings: TrainingSettings) -> Draw:
    """Return epoch -> batches (masked int32 [B, L], targets int32 [B, L], negatives int32 [n]).

    A row is a cut history with its target behind it. Only that one is masked with chance `mask_newest`, as
    it will be when serving, else every item with chance `mask_share`. Target 0: the place is not masked.
    """
    cuts = cut_batches(split, length, settings)

    def draw(epoch: int) -> Iterator[Arrays]:
        negatives = _negatives(split, settings, epoch)
        generator = batches.epoch_generator(settings.seed, epoch, _MASKS_STREAM)
        for history, target in cuts(epoch):
            whole = np.concatenate([history[:, 1:], target[:, None]], axis=1).astype(np.int32)
            chosen = (generator.random(whole.shape) < settings.mask_share) & (whole > 0)
            newest = (generator.random(len(whole)) < settings.mask_newest) | ~chosen.any(axis=1)
            chosen[newest] = np.arange(length) == length - 1
            masked = np.where(chosen, split.item_count + 1, whole).astype(np.int32)
            yield masked, np.where(chosen, whole, 0), next(negatives)

    return draw


def candidate_batches(split: Split, length: int, settings: TrainingSettings) -> Draw:
    """Return epoch -> batches (history int32 [B, L], candidates int32 [B, 1 + n], the target first)."""
    cuts = cut_batches(split, length, settings)

    def draw(epoch: int) -> Iterator[Arrays]:
        negatives = _negatives(split, settings, epoch)
        for history, target in cuts(epoch):
            shared = np.tile(next(negatives), (len(target), 1))
            # A negative that is the target moves on to the next item.
            shared = np.where(shared == target[:, None], shared % split.item_count + 1, shared)
            yield history, np.concatenate([target[:, None], shared], axis=1).astype(np.int32)

    return draw


def _examples(
    split: Split, length: int, settings: TrainingSettings, generator: np.random.Generator
) -> batches.Examples:
    # A search leads to one item, so a search model learns line by line.
    if split.queries is None and batches.learns_baskets(split):
        return batches.basket_windows(
            split.train,
            length,
            generator,
            newest=settings.newest,
            same_basket=settings.same_basket,
            only_new=settings.filter_seen,
        )
    return batches.windows(split.train, length, generator, newest=settings.newest)


def _queries(
    split: Split, settings: TrainingSettings, epoch: int
) -> Callable[[batches.Examples, slice], Arrays]:
    generator = batches.epoch_generator(settings.seed, epoch, _QUERIES_STREAM)

    def of(examples: batches.Examples, rows: slice) -> Arrays:
        if split.queries is None or examples.queries is None:
            return ()
        index = examples.queries[rows]
        return (split.queries[np.where(generator.random(index.shape) < settings.query_dropout, 0, index)],)

    return of


def _negatives(split: Split, settings: TrainingSettings, epoch: int) -> Iterator[NDArray[np.int32]]:
    generator = batches.epoch_generator(settings.seed, epoch, _NEGATIVES_STREAM)
    while True:
        yield generator.integers(1, split.item_count + 1, settings.negatives, dtype=np.int32)


def _slices(rows: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, rows, size))
