"""A seeded synthetic shop: the log that everything runs on when the user has none at hand.

How it sells. Every item has a category and a style (a colour range, say) and a place among its like. A
shopper has one style and a few favourite projects ("birthday", "new kitchen"): a project is an ordered
list of categories, and a basket walks along one project after another, in the shopper's style most of the
time, with stray items and things bought again in between. Projects share categories, so what comes next
depends on the last category *and* on the ones before it *and* on the style shown over the whole history;
counting which item follows which one sees only part of that. Projects have seasons, and best-sellers
change over the year.

How big the numbers are. Orders per shopper and lines per basket are log-normal, fitted to the quantiles of
UCI Online Retail (doi:10.24432/C5BW33), whose figures stand in ONLINE_RETAIL.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.data.clean import Interactions
from edgepack.data.read import Events
from edgepack.errors import DataError

DEMO_ITEMS = 2_000
DEMO_USERS = 2_400
MIN_ITEMS, MAX_ITEMS = 500, 200_000

_STYLES = 5
_CELL_ITEMS = 20  # items that share category and style
_PATH = 6  # categories of a project
_FAVOURITES = 3
_YEAR_S = 365 * 86_400
_START_S = 1_704_067_200  # 2024-01-01 00:00 UTC
_STYLE_SHARE = np.array([0.36, 0.26, 0.18, 0.12, 0.08])

_PROJECTS_PER_CATEGORY = 0.5
_PROJECT_SKEW = 0.8
_SHELF_SKEW = 0.9
_KEEPS_STYLE = 0.80
_KEEPS_PROJECT = 0.90
_TAKES_FAVOURITE = 0.60
_BUYS_AGAIN = 0.27


class ShopStatistics(NamedTuple):
    """What a log looks like from far: see `statistics`."""

    popularity_gini: float
    basket_items_mean: float
    basket_items_median: float
    repeat_share: float
    orders_mean: float
    orders_median: float


ONLINE_RETAIL = ShopStatistics(
    popularity_gini=0.6383,
    basket_items_mean=20.99,
    basket_items_median=15.0,
    repeat_share=0.3109,
    orders_mean=4.246,
    orders_median=2.0,
)
"""`statistics` of UCI Online Retail after the cleaning of `public.SETS["online-retail"]`: 386,326 events."""


def statistics(interactions: Interactions) -> ShopStatistics:
    """Return the figures that a synthetic shop has to share with a real one.

    `popularity_gini`: Gini coefficient of the events per item over items with an event. `basket_items_*`:
    distinct items in a basket. `repeat_share`: share of the events whose user had the item before.
    `orders_*`: baskets per user.
    """
    sequences = interactions.sequences
    owner = np.repeat(np.arange(sequences.users), np.diff(sequences.offsets))
    basket = np.unique(np.stack([owner, sequences.baskets]), axis=1, return_counts=True)
    pairs = np.unique(owner * (interactions.item_count + 1) + sequences.items)
    orders = np.bincount(basket[0][0], minlength=sequences.users)
    return ShopStatistics(
        popularity_gini=_gini(np.bincount(sequences.items)[1:]),
        basket_items_mean=float(basket[1].mean()),
        basket_items_median=float(np.median(basket[1])),
        repeat_share=1.0 - len(pairs) / len(owner),
        orders_mean=float(orders.mean()),
        orders_median=float(np.median(orders)),
    )


def _gini(counts: NDArray[np.int64]) -> float:
    rising = np.sort(counts[counts > 0]).astype(np.float64)
    place = np.arange(1, len(rising) + 1)
    return float((2 * place - len(rising) - 1) @ rising / (len(rising) * rising.sum()))


class _Shop(NamedTuple):
    """The shop's plan. `paths` int [projects, 8] categories; `*_odds` are cumulative probabilities."""

    categories: int
    paths: NDArray[np.int64]
    season: NDArray[np.float64]  # the day of the year, 0..1, on which a project sells best
    project_odds: NDArray[np.float64]
    shelf_odds: NDArray[np.float64]  # the places of a cell's items
    turn: NDArray[np.int64]  # by how many places each cell's best-sellers move over the year


class _Shoppers(NamedTuple):
    """Who buys, most lines first. `lines` are the lines of each; `basket` the basket number of a line."""

    lines: NDArray[np.int64]
    offsets: NDArray[np.int64]
    basket: NDArray[np.int64]
    basket_start: NDArray[np.int64]  # of each line: its user's lines before this basket
    time: NDArray[np.int64]
    style: NDArray[np.int64]
    favourites: NDArray[np.int64]


def make_shop(items: int = DEMO_ITEMS, users: int | None = None, seed: int = 0) -> Events:
    """Return the log of one year: about 80 lines a shopper in time order, all clean.

    `items` is the size of the catalogue, 500 to 200,000; `users` defaults to 1.2 times that. An item's id
    tells its category, style and place: `c07-s3-012`. The arguments and nothing else decide the log.
    Raises DataError when there are too few or too many items or users.
    """
    users = round(items * DEMO_USERS / DEMO_ITEMS) if users is None else users
    if not MIN_ITEMS <= items <= MAX_ITEMS or users < 1:
        raise DataError(
            "synthetic shop",
            f"{items} items and {users} users",
            allowed=f"it has {MIN_ITEMS} to {MAX_ITEMS} items and at least 1 user",
            remedy="Choose a size within the limits.",
        )
    generator = np.random.default_rng(seed)
    shop = _planned(items, generator)
    shoppers = _arrived(users, shop, generator)
    bought = _walked(shop, shoppers, items, generator)
    return _log(shop, shoppers, bought, generator)


def _planned(items: int, generator: np.random.Generator) -> _Shop:
    categories = items // (_STYLES * _CELL_ITEMS)
    projects = max(round(categories * _PROJECTS_PER_CATEGORY), 8)
    width = min(_PATH, categories)
    paths = np.argsort(generator.random((projects, categories)), axis=1)[:, :width]
    return _Shop(
        categories,
        paths,
        generator.random(projects),
        _cumulative(_zipf(projects, _PROJECT_SKEW)),
        _cumulative(_zipf(_CELL_ITEMS, _SHELF_SKEW)),
        generator.integers(0, 3, categories * _STYLES),
    )


def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    return np.asarray(np.arange(1, count + 1) ** -exponent, np.float64)


def _cumulative(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.cumsum(weights) / weights.sum(), np.float64)


def _arrived(users: int, shop: _Shop, generator: np.random.Generator) -> _Shoppers:
    orders = np.minimum(np.ceil(generator.lognormal(0.45, 1.31, users)), 60).astype(np.int64)
    sizes = np.clip(np.rint(generator.lognormal(np.log(16.5), 0.85, orders.sum())), 1, 150).astype(np.int64)
    owner = np.repeat(np.arange(users), orders)
    lines = np.bincount(owner, sizes, users).astype(np.int64)
    # Most lines first: the users who are still buying at step t are then a prefix of all arrays.
    order = np.argsort(-lines, kind="stable")
    by_owner = np.argsort(np.argsort(order)[owner], kind="stable")
    sizes, owner, lines = sizes[by_owner], np.repeat(np.arange(users), orders[order]), lines[order]
    offsets = np.concatenate([[0], np.cumsum(lines)])
    begins = np.cumsum(sizes) - sizes
    day_s = np.sort(generator.random(len(sizes)) + owner) % 1.0 * _YEAR_S
    within = np.arange(lines.sum()) - np.repeat(begins, sizes)
    favourites = np.searchsorted(shop.project_odds, generator.random((users, _FAVOURITES)))
    return _Shoppers(
        lines,
        offsets,
        np.repeat(np.arange(len(sizes)), sizes),
        np.repeat(begins - offsets[owner], sizes),
        _START_S + np.repeat(day_s.astype(np.int64), sizes) + 20 * within,
        np.searchsorted(_cumulative(_STYLE_SHARE), generator.random(users)),
        favourites,
    )


def _walked(
    shop: _Shop, shoppers: _Shoppers, items: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Let all shoppers put one line after the other into their baskets; return items 0..items-1 a line."""
    bought = np.zeros(len(shoppers.basket), np.int64)
    project = np.zeros(len(shoppers.lines), np.int64)
    place = np.full(len(shoppers.lines), shop.paths.shape[1])
    for step in range(int(shoppers.lines[0])):
        active = int(np.searchsorted(-shoppers.lines, -step, side="left"))
        line = shoppers.offsets[:active] + step
        again = (shoppers.basket_start[line] > 0) & (generator.random(active) < _BUYS_AGAIN)
        _advance(shop, shoppers, line, ~again, project[:active], place[:active], generator)
        new = _new_items(shop, shoppers, line, project[:active], place[:active], items, generator)
        back = (generator.random(active) * shoppers.basket_start[line]).astype(np.int64)
        bought[line] = np.where(again, bought[shoppers.offsets[:active] + back], new)
    return bought


def _advance(
    shop: _Shop,
    shoppers: _Shoppers,
    line: NDArray[np.int64],
    moves: NDArray[np.bool_],
    project: NDArray[np.int64],
    place: NDArray[np.int64],
    generator: np.random.Generator,
) -> None:
    """Move each shopper to the next category of the project, or to the start of another (in place)."""
    active = len(line)
    place += moves
    opens = line == shoppers.offsets[:active] + shoppers.basket_start[line]
    begins = (place >= shop.paths.shape[1]) | opens
    favourite = shoppers.favourites[np.arange(active), generator.integers(0, _FAVOURITES, active)]
    candidates = np.searchsorted(shop.project_odds, generator.random((2, active)))
    # Of two projects that come to mind the one nearer to its season is taken.
    now = (shoppers.time[line] - _START_S) % _YEAR_S / _YEAR_S
    away = np.abs((shop.season[candidates] - now + 0.5) % 1.0 - 0.5)
    seasonal = np.where(away[0] <= away[1], candidates[0], candidates[1])
    chosen = np.where(generator.random(active) < _TAKES_FAVOURITE, favourite, seasonal)
    project[begins] = chosen[begins]
    place[begins] = 0


def _new_items(
    shop: _Shop,
    shoppers: _Shoppers,
    line: NDArray[np.int64],
    project: NDArray[np.int64],
    place: NDArray[np.int64],
    items: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    active = len(line)
    stray = generator.random(active) >= _KEEPS_PROJECT
    category = np.where(stray, generator.integers(0, shop.categories, active), shop.paths[project, place])
    other = np.searchsorted(_cumulative(_STYLE_SHARE), generator.random(active))
    style = np.where(generator.random(active) < _KEEPS_STYLE, shoppers.style[:active], other)
    cell = category * _STYLES + style
    shelf = np.searchsorted(shop.shelf_odds, generator.random(active))
    late = generator.random(active) < (shoppers.time[line] - _START_S) / _YEAR_S
    shelf = (shelf + np.where(late, shop.turn[cell], 0)) % _CELL_ITEMS
    return np.asarray(cell * _CELL_ITEMS + shelf, np.int64) % items


def _log(
    shop: _Shop, shoppers: _Shoppers, bought: NDArray[np.int64], generator: np.random.Generator
) -> Events:
    """Return the lines in time order, each item once a basket."""
    kept = np.unique(shoppers.basket * (int(bought.max()) + 1) + bought, return_index=True)[1]
    kept = kept[np.argsort(shoppers.time[kept], kind="stable")]
    owner = np.repeat(np.arange(len(shoppers.lines)), shoppers.lines)
    names = generator.permutation(len(shoppers.lines))
    users = np.array([f"u{number:06d}" for number in names], object)
    cells = shop.categories * _STYLES
    ids = np.array(
        [f"c{c // _STYLES:02d}-s{c % _STYLES}-{n:03d}" for c in range(cells) for n in range(_CELL_ITEMS)],
        object,
    )
    baskets = np.array([f"o{number:07d}" for number in range(int(shoppers.basket[-1]) + 1)], object)
    price = np.round(generator.lognormal(1.0, 0.9, len(ids)) + 0.19, 2)
    quantity = generator.geometric(0.25, len(kept)).astype(np.float64)
    item = bought[kept]
    return Events(
        users[owner[kept]],
        ids[item],
        shoppers.time[kept],
        baskets[shoppers.basket[kept]],
        quantity,
        price[item],
    )
