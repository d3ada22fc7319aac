"""Histories that devices sent join the shop's log, and bring no items of their own making into it."""

from pathlib import Path

import pytest

from edgepack.config import DataConfig
from edgepack.data import collected
from edgepack.data.read import Columns, read
from edgepack.errors import DataError
from edgepack.stages import logs

LOG = "user,item,time,order,qty,price\nu1,a,100,o1,1,2\nu1,b,100,o1,1,3\nu2,a,200,o2,1,2\n"
EXPORT = "user,item,time\ndevice-1,b,1\ndevice-1,evil,2\ndevice-1,a,3\n"


def joined(tmp_path: Path, columns: Columns) -> collected.Joined:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "one.csv").write_text(EXPORT)
    return collected.join(read(tmp_path / "log.csv", columns), [tmp_path / "one.csv"])


def test_an_export_joins_the_log_as_a_user_of_its_own_in_its_own_order(tmp_path: Path) -> None:
    found = joined(tmp_path, Columns(basket="order", quantity="qty", price="price"))
    assert found.events.user.tolist() == ["u1", "u1", "u2", "device-1", "device-1"]
    assert found.events.item.tolist() == ["a", "b", "a", "b", "a"]
    assert found.events.time is not None
    assert found.events.time.tolist() == [100, 100, 200, 1, 3]
    assert found.events.basket is not None
    assert len(set(found.events.basket[3:].tolist())) == 2, "two clicks are two baskets"
    assert found.events.quantity is not None
    assert found.events.quantity.tolist() == [1] * 5


def test_an_item_that_the_log_does_not_know_is_left_out_and_counted(tmp_path: Path) -> None:
    (dropped,) = joined(tmp_path, Columns(time=None)).dropped
    assert (dropped.rows, dropped.example) == (1, "item 'evil'")


def test_a_log_without_times_keeps_the_order_of_its_rows(tmp_path: Path) -> None:
    found = joined(tmp_path, Columns(time=None)).events
    assert found.time is None
    assert found.item.tolist()[-2:] == ["b", "a"]


def test_an_export_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "odd.csv").write_text("shopper,thing\n1,2\n")
    with pytest.raises(DataError, match=r"odd\.csv: there is no column 'user'"):
        collected.join(read(tmp_path / "log.csv"), [tmp_path / "odd.csv"])


def test_a_new_export_is_a_new_source_and_a_missing_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "sent").mkdir()
    config = DataConfig(path="log.csv", collected="sent")
    before = logs.source_of(config, tmp_path)
    (tmp_path / "sent" / "one.csv").write_text(EXPORT)
    after = logs.source_of(config, tmp_path)
    assert before.identity != after.identity
    assert after.name == "log.csv and 1 collected history"
    with pytest.raises(DataError, match=r"data\.collected gone: there is no such folder"):
        logs.source_of(DataConfig(path="log.csv", collected="gone"), tmp_path)
