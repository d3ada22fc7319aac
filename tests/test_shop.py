"""The synthetic shop looks like the real one from far, repeats with its seed, and scales."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.data import public
from edgepack.data.clean import clean
from edgepack.data.read import Events, read
from edgepack.data.shop import DEMO_ITEMS, ONLINE_RETAIL, ShopStatistics, make_shop, statistics
from edgepack.errors import DataError


def of(events: Events) -> ShopStatistics:
    return statistics(clean(events)[0])


@pytest.mark.parametrize(
    ("items", "users", "seed"), [(DEMO_ITEMS, None, 0), (DEMO_ITEMS, None, 7), (6_000, None, 1)]
)
def test_every_figure_of_the_shop_is_within_a_fifth_of_the_real_one(items: int, users: int | None, seed: int):
    for name, found, real in zip(
        ShopStatistics._fields, of(make_shop(items, users, seed)), ONLINE_RETAIL, strict=True
    ):
        assert found == pytest.approx(real, rel=0.2), name


def test_the_reference_figures_are_those_of_the_cleaned_online_retail(datasets: Path):
    known = public.known("online-retail")
    path = datasets / "uci-online-retail" / "online_retail.parquet"
    kept, _ = clean(read(path, known.layouts[0].columns), known.cleaning)
    assert statistics(kept) == pytest.approx(ONLINE_RETAIL, rel=1e-3)


def test_statistics_of_a_log_of_two_users_are_the_counted_ones():
    events = Events(
        np.array(["a", "a", "a", "b"], object),
        np.array(["x", "y", "x", "x"], object),
        np.arange(4),
        np.array(["1", "1", "2", "3"], object),
        None,
        None,
    )
    # x has 3 events and y 1: Gini 1/4. Baskets of 2, 1, 1 lines; one repeat; 2 and 1 orders.
    assert of(events) == pytest.approx((0.25, 4 / 3, 1, 0.25, 1.5, 1.5))


def test_the_same_arguments_make_the_same_log_and_another_seed_another():
    first, again, other = make_shop(500, 100, 1), make_shop(500, 100, 1), make_shop(500, 100, 2)
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one, two)
    assert len(first.item) != len(other.item) or not np.array_equal(first.item, other.item)


def test_the_log_is_clean_in_time_order_and_every_item_has_one_price():
    events = make_shop(500, 300, 3)
    _, report = clean(events)
    assert report.dropped == ()
    assert (np.diff(events.time) >= 0).all()
    prices: dict[str, set[float]] = {}
    for item, price in zip(events.item, events.price, strict=True):
        prices.setdefault(item, set()).add(price)
    assert max(map(len, prices.values())) == 1


def test_what_sells_drifts_over_the_year():
    events = make_shop(DEMO_ITEMS, None, 0)
    half = len(events.item) // 2
    early, late = (
        dict(zip(*np.unique(part, return_counts=True), strict=True))
        for part in (events.item[:half], events.item[half:])
    )
    top = sorted(early, key=early.get, reverse=True)[:100]
    still = sorted(late, key=late.get, reverse=True)[:100]
    assert 20 <= len(set(top) & set(still)) <= 90


def test_a_catalogue_past_sixteen_bits_has_its_items_in_use():
    kept, _ = clean(make_shop(70_000, 4_000, 0))
    assert 40_000 < kept.item_count <= 70_000
    assert int(kept.sequences.items.max()) == kept.item_count


@pytest.mark.parametrize(("items", "users"), [(10, 10), (1_000_000, 10), (2_000, 0)])
def test_a_shop_of_impossible_size_is_refused(items: int, users: int):
    with pytest.raises(DataError, match="it has 500 to 200000 items and at least 1 user"):
        make_shop(items, users)
