"""What a model of the serving contract is fed: one int32 array [N, length] an input, by the input's name.

A model with the one input `history` may be given its array alone.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Rows = Mapping[str, "NDArray[np.int32]"]


class QueryHashing(msgspec.Struct, frozen=True, kw_only=True):
    """How search text becomes the input `query`, int32 [1, `length`], ids up to `buckets`.

    `spec` names the rules of `edgepack/data/query.py` as a whole; the numbers are the rules' own. An app
    that knows other rules must not hash.
    """

    spec: str = "edgepack-ngrams-1"
    length: int
    buckets: int
    sizes: tuple[int, ...] = (3, 4)
    seed: int = 0x5EED
    text_limit: int = 256


def named(rows: "NDArray[np.int32] | Rows") -> Rows:
    """Return rows by name; an array alone is `history`."""
    return rows if isinstance(rows, Mapping) else {"history": rows}


def row_count(rows: "NDArray[np.int32] | Rows") -> int:
    """Return N, how many rows there are."""
    return len(next(iter(named(rows).values())))


def part(rows: "NDArray[np.int32] | Rows", start: int, stop: int) -> Rows:
    """Return the rows start..stop of every input."""
    return {name: values[start:stop] for name, values in named(rows).items()}
