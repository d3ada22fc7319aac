"""Histories that shoppers sent from their devices, put beside the shop's own log: the feedback loop.

An app exports `user,item,time`: a name made anew for each export, item ids, and places in place of times.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.data.clean import DroppedRows
from edgepack.data.read import Events, read


class Joined(NamedTuple):
    """The log with what was collected, and what of that was left out."""

    events: Events
    dropped: tuple[DroppedRows, ...]


def join(log: Events, exports: Sequence[Path]) -> Joined:
    """Append the exports to `log`; every item of theirs is a basket of its own, bought once.

    Only items of `log` count, since anybody can write an export. Raises DataError as `read`, by file.
    """
    known = set(log.item.tolist())
    unknown: list[str] = []
    for path in exports:
        sent = read(path)
        fits = np.array([item in known for item in sent.item], bool)
        unknown += sent.item[~fits].tolist()
        log = _appended(log, sent, np.flatnonzero(fits))
    rule = "collected, of an item that the log does not know"
    dropped = DroppedRows(rule=rule, rows=len(unknown), example=f"item '{unknown[0]}'") if unknown else None
    return Joined(log, (dropped,) if dropped else ())


def _appended(log: Events, sent: Events, rows: NDArray[np.int64]) -> Events:
    count = len(rows)
    place = np.arange(count) if sent.time is None else sent.time[rows]
    own_basket = np.array([f"{user}/{row}" for user, row in zip(sent.user[rows], rows, strict=True)], object)
    return Events(
        user=np.concatenate([log.user, sent.user[rows]]),
        item=np.concatenate([log.item, sent.item[rows]]),
        time=None if log.time is None else np.concatenate([log.time, place]),
        basket=None if log.basket is None else np.concatenate([log.basket, own_basket]),
        quantity=None if log.quantity is None else np.concatenate([log.quantity, np.ones(count)]),
        price=None if log.price is None else np.concatenate([log.price, np.ones(count)]),
        query=None if log.query is None else np.concatenate([log.query, np.full(count, "", object)]),
    )
