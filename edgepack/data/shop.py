"""A seeded synthetic shop: the log that everything runs on when the user has none at hand.

How it sells. Shoppers work on projects ("a birthday", "a new kitchen"): a basket walks along one project
after another, and a project is an ordered list of things. Every other thing is a basic, the same for
everybody; between them stand pieces that come in twelve colours and, in turn, pieces that come in twelve
sizes. Each shopper keeps to one colour and one size, most of the time. Some lines are strays, some are things
bought again; projects share basics and have seasons.

So what comes next depends on the line just before (where in the project) *and* on the shopper's colour or
size, which was last shown four lines ago or earlier: counting what follows what cannot join the two, a model
that looks at the whole history can.

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

_STYLES = 12
# The things of a project: basics, pieces that come in colours, pieces that come in sizes.
_PATH = np.array([0, 1, 0, 2, 0, 1, 0, 2])
PIECES = int((_PATH > 0).sum())
_STYLED_SHARE = 0.95  # of the catalogue
_YEAR_S = 365 * 86_400
_START_S = 1_704_067_200  # 2024-01-01 00:00 UTC

_PROJECT_SKEW = 0.6
_KEEPS_STYLE = 0.96
_KEEPS_PROJECT = 0.90
_BUYS_AGAIN = 0.14
_SEASON_CHOICES = 2
_KNOWN_PROJECTS = 30  # of each shopper of a large shop; the projects of a small one are all known


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
    """The shop's plan. Things below `basics` are items; thing t above comes as `_STYLES` items."""

    basics: int
    paths: NDArray[np.int64]  # things, int64 [projects, 8]
    season: NDArray[np.float64]  # when in the year, 0..1, a project sells best
    project_odds: NDArray[np.float64]  # cumulative


class _Shoppers(NamedTuple):
    """Who buys, most lines first. `lines` are the lines of each; `basket` the basket number of a line."""

    lines: NDArray[np.int64]
    offsets: NDArray[np.int64]
    basket: NDArray[np.int64]
    basket_start: NDArray[np.int64]  # of each line: its user's lines before this basket
    time: NDArray[np.int64]
    style: NDArray[np.int64]  # colour and size, [users, 2]
    projects: NDArray[np.int64]  # the ones that a shopper chooses from, [users, n]


def make_shop(items: int = DEMO_ITEMS, users: int | None = None, seed: int = 0) -> Events:
    """Return the log of one year: about 80 lines a shopper in time order, all clean.

    `items` is the size of the catalogue, 500 to 200,000; `users` defaults to 1.2 times that. An item's id
    tells what it is: `basic-0012` or `piece-0034-05`. The arguments and nothing else decide the log.
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
    bought = _walked(shop, shoppers, generator)
    return _log(shop, shoppers, bought, generator)


def _planned(items: int, generator: np.random.Generator) -> _Shop:
    styled_things = int(items * _STYLED_SHARE / _STYLES)
    projects = styled_things // PIECES
    basics = items - projects * PIECES * _STYLES
    paths = np.empty((projects, len(_PATH)), np.int64)
    paths[:, _PATH > 0] = basics + np.arange(projects * PIECES).reshape(projects, -1)
    # Most basics belong to one project, some to several.
    slots = projects * int((_PATH == 0).sum())
    paths[:, _PATH == 0] = generator.permutation(np.arange(slots) % basics).reshape(projects, -1)
    odds = _cumulative(np.arange(1, projects + 1) ** -_PROJECT_SKEW)
    return _Shop(basics, paths, generator.random(projects), odds)


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
    known = _KNOWN_PROJECTS + 8_000 // len(shop.paths)
    return _Shoppers(
        lines,
        offsets,
        np.repeat(np.arange(len(sizes)), sizes),
        np.repeat(begins - offsets[owner], sizes),
        _START_S + np.repeat(day_s.astype(np.int64), sizes) + 20 * within,
        generator.integers(0, _STYLES, (users, 2)),
        np.searchsorted(shop.project_odds, generator.random((users, known))),
    )


def _walked(shop: _Shop, shoppers: _Shoppers, generator: np.random.Generator) -> NDArray[np.int64]:
    """Let all shoppers put one line after the other into their baskets; return the item of each line."""
    bought = np.zeros(len(shoppers.basket), np.int64)
    project = np.zeros(len(shoppers.lines), np.int64)
    place = np.zeros(len(shoppers.lines), np.int64)
    for step in range(int(shoppers.lines[0])):
        active = int(np.searchsorted(-shoppers.lines, -step, side="left"))
        line = shoppers.offsets[:active] + step
        earlier = shoppers.basket_start[line]
        again = (earlier > 0) & (generator.random(active) < _BUYS_AGAIN)
        begins = _advance(step == earlier, ~again, place[:active])
        known, time = shoppers.projects[:active][begins], shoppers.time[line[begins]]
        project[:active][begins] = _chosen(shop, known, time, generator)
        new = _new_items(shop, shoppers.style[:active], project[:active], place[:active], generator)
        back = (generator.random(active) * earlier).astype(np.int64)
        bought[line] = np.where(again, bought[shoppers.offsets[:active] + back], new)
    return bought


def _advance(
    opens: NDArray[np.bool_], moves: NDArray[np.bool_], place: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Move shoppers on to the next thing (in place); return who is at the start of another project."""
    place += moves
    begins = (place >= len(_PATH)) | opens
    place[begins] = 0
    return begins


def _chosen(
    shop: _Shop, known: NDArray[np.int64], time: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return the next project of each shopper: of two that they think of, the one nearer to its season."""
    draws = generator.integers(0, known.shape[1], (len(known), _SEASON_CHOICES))
    minds = np.take_along_axis(known, draws, axis=1)
    now = (time - _START_S) % _YEAR_S / _YEAR_S
    away = np.abs((shop.season[minds] - now[:, None] + 0.5) % 1.0 - 0.5)
    return np.take_along_axis(minds, away.argmin(axis=1)[:, None], axis=1)[:, 0]


def _new_items(
    shop: _Shop,
    own_style: NDArray[np.int64],
    project: NDArray[np.int64],
    place: NDArray[np.int64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    active = len(project)
    stray = generator.random(active) >= _KEEPS_PROJECT
    project = np.where(stray, generator.integers(0, len(shop.paths), active), project)
    place = np.where(stray, generator.integers(0, len(_PATH), active), place)
    thing = shop.paths[project, place]
    keeps = generator.random(active) < _KEEPS_STYLE
    own = own_style[np.arange(active), np.maximum(_PATH[place], 1) - 1]
    style = np.where(keeps, own, generator.integers(0, _STYLES, active))
    styled = shop.basics + (thing - shop.basics) * _STYLES + style
    return np.where(thing < shop.basics, thing, styled)


def _log(
    shop: _Shop, shoppers: _Shoppers, bought: NDArray[np.int64], generator: np.random.Generator
) -> Events:
    """Return the lines in time order, each item once a basket."""
    ids = _ids(shop)
    kept = np.unique(shoppers.basket * len(ids) + bought, return_index=True)[1]
    kept = kept[np.argsort(shoppers.time[kept], kind="stable")]
    owner = np.repeat(np.arange(len(shoppers.lines)), shoppers.lines)
    names = generator.permutation(len(shoppers.lines))
    users = np.array([f"u{number:06d}" for number in names], object)
    baskets = np.array([f"o{number:07d}" for number in range(int(shoppers.basket[-1]) + 1)], object)
    price = np.round(generator.lognormal(1.0, 0.9, len(ids)) + 0.19, 2)
    quantity = generator.geometric(0.25, len(kept)).astype(np.float64)
    item = bought[kept]
    time, basket = shoppers.time[kept], baskets[shoppers.basket[kept]]
    return Events(users[owner[kept]], ids[item], time, basket, quantity, price[item])


def _ids(shop: _Shop) -> NDArray[np.object_]:
    pieces = range(len(shop.paths) * PIECES)
    basics = [f"basic-{number:04d}" for number in range(shop.basics)]
    return np.array([*basics, *(f"piece-{p:04d}-{s:02d}" for p in pieces for s in range(_STYLES))], object)
