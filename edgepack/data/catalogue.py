"""What an app shows of the items: titles, prices and categories, out of a product list or the log itself."""

from collections.abc import Sequence
from typing import cast

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgepack.config import CatalogueConfig
from edgepack.data import shop_search
from edgepack.data.formats import Table
from edgepack.data.read import Events
from edgepack.errors import DataError


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """One entry an item of the vocabulary, index 0 (padding) empty.

    `titles`: an item without one shows its id. `prices` in `currency` (ISO 4217, "" when unknown), None for
    an item without one; `prices` and `categories` are None when the shop tells none. An app shows `notice`.
    """

    titles: tuple[str, ...]
    prices: tuple[float | None, ...] | None
    categories: tuple[str, ...] | None
    currency: str
    notice: str


def of_table(table: Table, wanted: CatalogueConfig, item: str, vocabulary: Sequence[str]) -> Catalogue:
    """Return the catalogue of `vocabulary` ([0] is padding), where column `item` of `table` holds the ids.

    A product list has a row an item; of a log, whose titles and prices change, the most common counts.
    Raises DataError when the table has none of the items, or a price that is no number.
    """
    place = {id: index for index, id in enumerate(vocabulary)}
    index = np.array([place.get(id, 0) for id in table.text(item)], np.int64)
    if not index.any():
        raise DataError(
            str(table.path),
            f"its column {item} has none of the log's {len(vocabulary) - 1:,} items",
            allowed=f"they are called like {vocabulary[1]}",
            remedy="Correct data.catalogue.item, or leave [data.catalogue] out.",
        )

    def text(column: str) -> list[str | None]:
        found = _most_common(index, np.array([" ".join(word.split()) for word in table.text(column)], object))
        return [cast(str | None, found.get(i)) for i in range(len(vocabulary))]

    titles = text(wanted.title)
    return Catalogue(
        titles=("", *(title or id for title, id in zip(titles[1:], vocabulary[1:], strict=True))),
        prices=_prices(index, table.numbers(wanted.price), len(vocabulary)) if wanted.price else None,
        categories=tuple(name or "" for name in text(wanted.category)) if wanted.category else None,
        currency=wanted.currency,
        notice=wanted.notice,
    )


def of_shop(events: Events, vocabulary: Sequence[str]) -> Catalogue:
    """Return the catalogue of the embedded shop, whose log is `events`."""
    words = [shop_search.title(id) for id in vocabulary[1:]]
    place = {id: index for index, id in enumerate(vocabulary)}
    index = np.array([place.get(id, 0) for id in events.item], np.int64)
    assert events.price is not None  # noqa: S101  the shop tells a price of every item
    return Catalogue(
        titles=("", *map(_titled, words)),
        prices=_prices(index, events.price, len(vocabulary)),
        categories=("", *(word["noun"].capitalize() for word in words)),
        currency="EUR",
        notice="An invented shop: its products, prices and shoppers are made up.",
    )


def _titled(words: dict[str, str]) -> str:
    name = f"{words['brand'].capitalize()} {words['material']} {words['noun']}"
    return f"{name}, {words['style']}" if "style" in words else name


def _prices(index: NDArray[np.int64], prices: NDArray[np.float64], count: int) -> tuple[float | None, ...]:
    sold = prices > 0  # NaN is not; a price of 0 is a correction or a gift
    found = _most_common(index[sold], prices[sold])
    return tuple(cast(float | None, found.get(i)) for i in range(count))


def _most_common(
    index: NDArray[np.int64], values: NDArray[np.object_] | NDArray[np.float64]
) -> dict[int, str | float]:
    """Return {item: its most common value that is not empty}, padding left out; equals by the lower value."""
    told = (index > 0) & (values != "")
    counted = pa.table({"item": index[told], "value": values[told]})
    counted = counted.group_by(["item", "value"]).aggregate([([], "count_all")])
    rarest_first = counted.sort_by([("count_all", "ascending"), ("value", "descending")])
    return dict(zip(rarest_first["item"].to_pylist(), rarest_first["value"].to_pylist(), strict=True))
