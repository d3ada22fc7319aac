"""Cleans a log and says what it dropped and why; users become dense integers, items 1..V."""

import re
from collections.abc import Callable
from typing import NamedTuple, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from edgepack.data.read import Events
from edgepack.data.types import Sequences
from edgepack.errors import DataError

Rows = NDArray[np.bool_]


class CleaningRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is dropped. Rules about a column that the log does not have do nothing.

    `cancelled_prefix`: baskets whose id starts so are cancellations ("" for none); rows with a quantity
    or price of 0 or less go as well. `product_pattern`: a regular expression that an item id must match
    at its start. `min_item_events`, `min_user_events`: rarer items, then users, go; once, or with
    `until_stable` again and again until both hold.
    """

    cancelled_prefix: str = ""
    product_pattern: str = ""
    min_item_events: int = 1
    min_user_events: int = 1
    until_stable: bool = False


class DroppedRows(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows one rule dropped, with the first of them (never its user)."""

    rule: str
    rows: int
    example: str


class CleaningReport(msgspec.Struct, frozen=True, kw_only=True):
    """What cleaning was given, what it dropped by which rule, and what is left."""

    rows_read: int
    dropped: tuple[DroppedRows, ...]
    users: int
    items: int
    baskets: int
    events: int

    def counts(self) -> dict[str, int]:
        """Return {rule: rows dropped} of the rules that dropped any."""
        return {part.rule: part.rows for part in self.dropped}


class Interactions(NamedTuple):
    """A clean log: each user's items in time order, their times, and the text id of each item.

    `time` int64 [events] or None if the log has none; `vocabulary[i]` is the id of item i, "" at 0;
    items are numbered by falling number of events, then by id. `users[u]` is the id of user u, for joining
    what else is known of them: it never leaves the machine. `queries`: the search text of each event,
    object [events], or None.
    """

    sequences: Sequences
    time: NDArray[np.int64] | None
    vocabulary: tuple[str, ...]
    users: tuple[str, ...] = ()
    queries: NDArray[np.object_] | None = None

    @property
    def item_count(self) -> int:
        """V, the number of items."""
        return len(self.vocabulary) - 1


def clean(events: Events, rules: CleaningRules | None = None) -> tuple[Interactions, CleaningReport]:
    """Return what the rules leave of `events`, and the report. Repeat purchases stay.

    Of rows equal in user, basket and item one is kept. Raises DataError when no row is left, or
    `product_pattern` is no regular expression.
    """
    rules = rules or CleaningRules()
    kept = np.ones(len(events.item), bool)
    dropped: list[DroppedRows] = []

    def drop(rule: str, bad: Rows) -> None:
        bad = bad & kept
        if count := int(bad.sum()):
            dropped.append(DroppedRows(rule=rule, rows=count, example=_example(events, int(bad.argmax()))))
            kept[bad] = False

    for rule, find in _ROW_RULES.items():
        drop(rule, find(events, rules))
    drop("equal in user, basket and item", _equal_rows(events, kept))
    for rule, bad in _rare(events, kept, rules):
        drop(rule, bad)
    if not kept.any():
        worst = ", ".join(f"{part.rule}: {part.rows}" for part in dropped)
        raise DataError(
            "cleaning the log",
            f"none of {len(kept)} rows is left ({worst})",
            remedy="Check the column mapping and loosen the cleaning rules.",
        )
    interactions = _interactions(events, np.flatnonzero(kept))
    return interactions, _report(interactions, len(kept), dropped)


def _none(events: Events) -> Rows:
    return np.zeros(len(events.item), bool)


def _cancelled(events: Events, rules: CleaningRules) -> Rows:
    if events.basket is None or not rules.cancelled_prefix:
        return _none(events)
    return _starts(events.basket, rules.cancelled_prefix)


def _no_quantity(events: Events, rules: CleaningRules) -> Rows:
    return _none(events) if events.quantity is None else ~(events.quantity > 0)


def _no_price(events: Events, rules: CleaningRules) -> Rows:
    return _none(events) if events.price is None else ~(events.price > 0)


def _no_product(events: Events, rules: CleaningRules) -> Rows:
    if not rules.product_pattern:
        return _none(events)
    try:
        pattern = re.compile(rules.product_pattern)
    except re.error as error:
        raise DataError(
            "product_pattern",
            f"'{rules.product_pattern}' is no regular expression: {error}",
            remedy="Correct the pattern.",
        ) from error
    codes, ids = _encoded(events.item)
    return np.array([pattern.match(word) is None for word in ids], bool)[codes]


_ROW_RULES: dict[str, Callable[[Events, CleaningRules], Rows]] = {
    "missing user": lambda events, rules: events.user == "",
    "missing item": lambda events, rules: events.item == "",
    "cancelled": _cancelled,
    "quantity not above 0": _no_quantity,
    "price not above 0": _no_price,
    "not a product": _no_product,
}


def _starts(words: NDArray[np.object_], prefix: str) -> Rows:
    return cast(Rows, pc.starts_with(pa.array(words, pa.string()), prefix).to_numpy(zero_copy_only=False))


def _encoded(words: NDArray[np.object_]) -> tuple[NDArray[np.int64], list[str]]:
    """Return a number for each word, in order of first appearance, and the words by number."""
    encoded = pa.array(words, pa.string()).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _equal_rows(events: Events, kept: Rows) -> Rows:
    if events.basket is None:
        return _none(events)
    rows = np.flatnonzero(kept)
    item, ids = _encoded(events.item[rows])
    basket = _basket_of(events.user[rows], events.basket[rows])
    _, first = np.unique(basket * len(ids) + item, return_index=True)
    again = _none(events)
    again[np.delete(rows, first)] = True
    return again


def _basket_of(user: NDArray[np.object_], basket: NDArray[np.object_]) -> NDArray[np.int64]:
    """Number the baskets of rows; a basket belongs to one user even if two share its id."""
    owner, _ = _encoded(user)
    number, ids = _encoded(basket)
    return np.asarray(np.unique(owner * len(ids) + number, return_inverse=True)[1], np.int64)


def _rare(events: Events, kept: Rows, rules: CleaningRules) -> list[tuple[str, Rows]]:
    """Return the rows that fall to the two minimums; each rule's rows over all rounds."""
    user, users = _encoded(events.user)
    item, items = _encoded(events.item)
    left = kept.copy()
    few_items, few_users = _none(events), _none(events)
    while True:
        before = int(left.sum())
        few_items |= left & (np.bincount(item[left], minlength=len(items)) < rules.min_item_events)[item]
        left &= ~few_items
        few_users |= left & (np.bincount(user[left], minlength=len(users)) < rules.min_user_events)[user]
        left &= ~few_users
        if not rules.until_stable or int(left.sum()) == before:
            break
    return [
        (f"item with fewer than {rules.min_item_events} events", few_items),
        (f"user with fewer than {rules.min_user_events} events", few_users),
    ]


def _interactions(events: Events, rows: NDArray[np.int64]) -> Interactions:
    user, users = _encoded(events.user[rows])
    time = np.zeros(len(rows), np.int64) if events.time is None else events.time[rows]
    if events.basket is None:
        order = np.lexsort((time, user))
        basket = np.arange(len(rows))
    else:
        basket = _basket_of(events.user[rows], events.basket[rows])
        order = _by_basket(user, time, basket)
        basket = basket[order]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(users)))]).astype(np.int64)
    items, vocabulary = _numbered(events.item[rows][order])
    baskets = _counted(basket, offsets)
    kept_time = None if events.time is None else time[order]
    queries = None if events.query is None else events.query[rows][order]
    return Interactions(Sequences(items, offsets, baskets), kept_time, vocabulary, tuple(users), queries)


def _by_basket(
    user: NDArray[np.int64], time: NDArray[np.int64], basket: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Order rows by user, the basket's first time, basket, time, row, so that baskets stay in one piece."""
    count = int(basket.max()) + 1
    begins = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(begins, basket, time)
    first_row = np.full(count, len(basket))
    np.minimum.at(first_row, basket, np.arange(len(basket)))
    return np.asarray(np.lexsort((time, first_row[basket], begins[basket], user)), np.int64)


def _counted(basket: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int32]:
    """Number the baskets of each user from 0, int32 [events]; `basket` changes where a new one begins."""
    begins = np.concatenate([[True], basket[1:] != basket[:-1]])
    begins[offsets[:-1]] = True
    number = np.cumsum(begins)
    return np.asarray(number - np.repeat(number[offsets[:-1]], np.diff(offsets)), np.int32)


def _numbered(items: NDArray[np.object_]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    codes, ids = _encoded(items)
    counts = np.bincount(codes)
    order = sorted(range(len(ids)), key=lambda code: (-counts[code], ids[code]))
    number = np.zeros(len(ids), np.int32)
    number[order] = np.arange(1, len(ids) + 1)
    return number[codes], ("", *(ids[code] for code in order))


def _example(events: Events, row: int) -> str:
    # A report is passed around, so the example shows no user.
    parts = [f"row {row + 1}: item '{events.item[row]}'"]
    if events.basket is not None:
        parts.append(f"basket '{events.basket[row]}'")
    if events.quantity is not None:
        parts.append(f"quantity {events.quantity[row]:g}")
    if events.price is not None:
        parts.append(f"price {events.price[row]:g}")
    return ", ".join(parts)


def _report(interactions: Interactions, rows_read: int, dropped: list[DroppedRows]) -> CleaningReport:
    sequences = interactions.sequences
    last = sequences.offsets[1:] - 1
    return CleaningReport(
        rows_read=rows_read,
        dropped=tuple(dropped),
        users=sequences.users,
        items=interactions.item_count,
        baskets=int((sequences.baskets[last] + 1).sum()),
        events=len(sequences.items),
    )
