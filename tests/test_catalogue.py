"""What apps show of the items: read out of a product list, a log, a public set, or made up for the shop."""

from pathlib import Path

import msgspec
import pytest

from edgepack.config import CatalogueConfig, load_config
from edgepack.data import catalogue, public, shop
from edgepack.data.catalogue import Catalogue
from edgepack.data.formats import read_table
from edgepack.errors import ConfigError, DataError
from edgepack.stages import Place, logs
from edgepack.stages import catalogue as stage
from edgepack.store import Store

LOG = """user,item,time,name,price
u1,a,1,Old mug,4.00
u1,b,2,,
u2,a,3,Teal  mug,5.00
u2,c,4,"Lamp, oak",0
u3,a,5,Teal mug,5.00
u3,b,6,,
u3,d,7,Gone,9.00
"""


def of_log(tmp_path: Path, wanted: CatalogueConfig, vocabulary: list[str]) -> Catalogue:
    (tmp_path / "log.csv").write_text(LOG)
    columns = [name for name in ("item", wanted.title, wanted.price, wanted.category) if name]
    return catalogue.of_table(read_table(tmp_path / "log.csv", columns), wanted, "item", vocabulary)


def place(folder: Path, data: str) -> Place:
    (folder / "edgepack.toml").write_text(data)
    return Place(load_config(folder / "edgepack.toml"), folder, Store(folder / "store"), lambda *_: None)


def test_the_most_common_title_and_price_of_an_item_are_shown_and_one_without_shows_its_id(tmp_path: Path):
    wanted = CatalogueConfig(title="name", price="price", currency="GBP", notice="of us")
    assert of_log(tmp_path, wanted, ["", "a", "b", "c"]) == Catalogue(
        titles=("", "Teal mug", "b", "Lamp, oak"),
        prices=(None, 5.0, None, None),
        categories=None,
        currency="GBP",
        notice="of us",
    )


def test_without_a_price_column_no_prices_are_told_and_a_category_may_be(tmp_path: Path):
    found = of_log(tmp_path, CatalogueConfig(title="name", category="user"), ["", "c", "d"])
    assert found.prices is None
    assert found.categories == ("", "u2", "u3")


def test_a_list_of_other_items_is_refused_by_the_ids_it_should_have(tmp_path: Path):
    with pytest.raises(DataError, match=r"none of the log's 2 items; they are called like sku-1"):
        of_log(tmp_path, CatalogueConfig(title="name"), ["", "sku-1", "sku-2"])


def test_a_price_that_is_no_number_is_refused_by_its_line(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"log\.csv, line 2: column name holds 'Old mug'; it must hold a number"
    ):
        of_log(tmp_path, CatalogueConfig(title="name", price="name"), ["", "a"])


def test_the_embedded_shop_has_titles_prices_and_says_that_they_are_made_up():
    events = shop.make_shop(500, seed=7)
    vocabulary = ["", *sorted(set(events.item))]
    found = catalogue.of_shop(events, vocabulary)
    assert len(found.titles) == len(vocabulary)
    assert found.titles[1].endswith(" " + str(found.categories and found.categories[1].lower()))
    assert found.prices is not None
    assert min(price for price in found.prices[1:] if price is not None) > 0
    assert events.price is not None
    assert found.prices[vocabulary.index(events.item[0])] == events.price[0]
    assert "made up" in found.notice


def test_a_product_list_beside_the_log_is_the_catalogue(tmp_path: Path):
    (tmp_path / "log.csv").write_text(LOG + "u1,d,8,x,1\nu2,d,9,x,1\n")
    (tmp_path / "products.tsv").write_text("sku\tname\tkind\na\tMug\tKitchen\nd\tVase\tHome\n")
    at = place(
        tmp_path,
        '[data]\npath = "log.csv"\n[data.catalogue]\npath = "products.tsv"\nitem = "sku"\ntitle = "name"\n'
        'category = "kind"\n',
    )
    split = logs.split_log(at)
    vocabulary = msgspec.json.decode((split.path / "vocabulary.json").read_bytes(), type=list[str])
    told = stage.catalogue(at, split)
    assert told is not None
    found = msgspec.json.decode(told, type=Catalogue)
    assert dict(zip(vocabulary, found.titles, strict=True))["d"] == "Vase"
    assert dict(zip(vocabulary, found.titles, strict=True))["b"] == "b"
    kept = len(at.store.kept)
    assert stage.catalogue(at, split) == told
    assert len(at.store.kept) == kept + 1


def test_a_log_without_a_catalogue_has_none_and_the_shop_takes_no_other(tmp_path: Path):
    (tmp_path / "log.csv").write_text(LOG)
    at = place(tmp_path, '[data]\npath = "log.csv"\n')
    assert stage.catalogue(at, logs.split_log(at)) is None
    at = place(tmp_path, '[data.shop]\nitems = 500\n[data.catalogue]\ntitle = "x"\n')
    with pytest.raises(ConfigError, match=r"data\.catalogue: is set beside data\.shop"):
        stage.catalogue(at, logs.split_log(at))
    at = place(tmp_path, '[data]\npath = "log.csv"\n[data.catalogue]\ntitle = "x"\npath = "gone.csv"\n')
    with pytest.raises(DataError, match=r"data\.catalogue\.path gone\.csv: there is no such file"):
        stage.catalogue(at, logs.split_log(at))


def test_online_retail_shows_its_descriptions_in_pounds_and_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = Path(__file__).parents[2] / "shared/datasets/uci-online-retail/online_retail.parquet"
    if not source.is_file():
        pytest.skip("the real log is not beside this checkout")
    monkeypatch.setenv("EDGEPACK_HOME", str(tmp_path / "home"))
    public.take("online-retail", source)
    at = place(tmp_path, '[data]\nset = "online-retail"\n')
    split = logs.split_log(at)
    vocabulary = msgspec.json.decode((split.path / "vocabulary.json").read_bytes(), type=list[str])
    found = msgspec.json.decode(stage.catalogue(at, split) or b"", type=Catalogue)
    item = vocabulary.index("85123A")
    assert (found.titles[item], found.currency) == ("WHITE HANGING HEART T-LIGHT HOLDER", "GBP")
    assert found.prices is not None
    assert found.prices[item] == 2.95
    assert sum(title == id for title, id in zip(found.titles[1:], vocabulary[1:], strict=True)) == 0
    assert "CC BY 4.0" in found.notice
