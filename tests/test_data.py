"""Logs are read or refused by file, line and rule; cleaned with a count for every rule; split by time."""

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from edgepack.data import public
from edgepack.data.clean import CleaningRules, Interactions, clean
from edgepack.data.read import Columns, Events, read
from edgepack.data.split import (
    calibration_rows,
    cold_targets,
    leave_one_out,
    load_split,
    next_basket,
    save_split,
)
from edgepack.data.types import Sequences
from edgepack.errors import DataError

INVOICES = Columns(user="who", item="what", time="when", basket="invoice", quantity="n", price="price")
ROWS = [
    ("ann", "10001", 30, "A1", 1, 2.5),
    ("ann", "10002", 30, "A1", 2, 1.0),
    ("bob", "10001", 10, "B1", 1, 2.5),
]


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def separated(separator: str) -> str:
    header = ["who", "what", "when", "invoice", "n", "price"]
    return "\n".join(separator.join(map(str, row)) for row in [header, *ROWS]) + "\n"


def test_the_same_log_reads_alike_from_every_format_with_columns(tmp_path: Path):
    names = ["who", "what", "when", "invoice", "n", "price"]
    lines = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS)
    table = pa.table({name: [row[i] for row in ROWS] for i, name in enumerate(names)})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    paths = [
        write(tmp_path / "log.csv", separated(",")),
        write(tmp_path / "log.tsv.gz", separated("\t")),
        write(tmp_path / "log.jsonl", lines),
        tmp_path / "log.parquet",
    ]
    for path in paths:
        events = read(path, INVOICES)
        assert events.user.tolist() == ["ann", "ann", "bob"], path
        assert events.item.tolist() == ["10001", "10002", "10001"]
        assert events.time is not None and events.time.tolist() == [30, 30, 10]
        assert events.basket is not None and events.basket.tolist() == ["A1", "A1", "B1"]
        assert events.price is not None and events.price.tolist() == [2.5, 1.0, 2.5]


def test_sequences_are_read_as_one_event_an_item_in_the_order_of_the_line(tmp_path: Path):
    events = read(write(tmp_path / "log.txt.gz", "u1 a b\n\nu2 c\nu1 d\n"))
    assert events.user.tolist() == ["u1", "u1", "u2", "u1"]
    assert events.item.tolist() == ["a", "b", "c", "d"]
    assert events.time is None


@pytest.mark.parametrize(
    ("text", "layout", "seconds"),
    [
        ("1700000000", None, 1_700_000_000),
        ("964982703.0", None, 964_982_703),
        ("2011-12-09T12:50:00", None, 1_323_435_000),
        ("2011-12-09 12:50:00", None, 1_323_435_000),
        ("12/9/2011 12:50", "%m/%d/%Y %H:%M", 1_323_435_000),
    ],
)
def test_times_are_read_as_seconds_from_numbers_and_text(
    tmp_path: Path, text: str, layout: str | None, seconds: int
):
    events = read(write(tmp_path / "log.csv", f"user,item,time\nu,i,{text}\n"), Columns(time_format=layout))
    assert events.time is not None and events.time.tolist() == [seconds]


def test_ids_that_became_floats_beside_a_missing_one_are_whole_again(tmp_path: Path):
    table = pa.table({"user": [17850.0, None], "item": ["a", "b"]})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet", Columns(time=None)).user.tolist() == ["17850", ""]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "", "the log is empty"),
        ("b.csv", "user,item,time\n", "the log has no rows"),
        ("c.txt", "\n", "the log has no rows"),
        (
            "d.csv",
            "user,itm,time\nu,i,1\n",
            "no column 'item'; the columns are user, itm, time. Did you mean",
        ),
        ("e.csv", 'user,item,time\n"u\nv",i,1\nu,i\n', "e.csv, line 4: it has 2 fields; the header has 3"),
        ("f.csv", "user,item,time\nu,i,1\n\nu,i,soon\n", "f.csv, line 4: column time holds 'soon'"),
        ("g.csv", "user,item,time\nu,i,\n", "line 2: column time holds nothing"),
        ("h.jsonl", '{"user": "u", "item": "i", "time": 1}\n{"user"\n', "h.jsonl, line 2"),
        ("i.jsonl", '{"user": ["u"], "item": "i"}\n', "line 1: 'user' holds a nested value"),
        ("j.jsonl", '{"user": "u", "thing": "i", "time": 1}\n', "there is no column 'item'"),
        ("k.txt", "u1 a\nu2\n", "line 2: a user without items"),
        ("l.dat", "1::2::3\n", "line 1: it has 3 fields"),
        ("m.parquet", "PAR?", "is no Parquet file"),
        ("n.xlsx", "no", "is no Excel workbook"),
        ("o.doc", "x", "the suffix '.doc' does not tell the format"),
    ],
)
def test_a_log_that_cannot_be_read_is_refused_by_file_line_and_rule(
    tmp_path: Path, name: str, text: str, says: str
):
    with pytest.raises(DataError) as refusal:
        read(write(tmp_path / name, text))
    assert says in str(refusal.value)
    assert name in str(refusal.value)


def test_text_that_is_not_utf8_a_missing_file_and_an_unknown_format_are_refused(tmp_path: Path):
    (tmp_path / "latin.csv").write_bytes("user,item,time\nu,caf\xe9,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.csv, line 2: the text is not UTF-8"):
        read(tmp_path / "latin.csv")
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="Did you mean 'parquet'"):
        read(tmp_path / "latin.csv", format="parket")


def test_a_number_that_is_none_is_refused_with_its_column(tmp_path: Path):
    path = write(tmp_path / "log.csv", "user,item,n\nu,i,2\nu,j,\nu,k,many\n")
    with pytest.raises(DataError, match="line 4: column n holds 'many'; it must hold a number"):
        read(path, Columns(time=None, quantity="n"))


def test_a_workbook_is_read_with_its_dates_as_seconds(tmp_path: Path):
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c>'
        '<c r="C1" t="s"><v>2</v></c></row>'
        '<row r="2"><c r="A2"><v>17850</v></c><c r="B2" t="inlineStr"><is><t>85123A</t></is></c>'
        '<c r="C2" s="1"><v>40513.351388888892</v></c></row>'
        '<row r="3"><c r="B3"><v>22</v></c><c r="C3" s="1"><v>40513.5</v></c></row></sheetData></worksheet>'
    )
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    strings = (
        f"<sst {main}>" + "".join(f"<si><t>{word}</t></si>" for word in ("user", "item", "time")) + "</sst>"
    )
    styles = f'<styleSheet {main}><cellXfs><xf numFmtId="0"/><xf numFmtId="22"/></cellXfs></styleSheet>'
    with zipfile.ZipFile(tmp_path / "log.xlsx", "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", sheet)
        book.writestr("xl/sharedStrings.xml", strings)
        book.writestr("xl/styles.xml", styles)
    events = read(tmp_path / "log.xlsx")
    assert events.user.tolist() == ["17850", ""]
    assert events.item.tolist() == ["85123A", "22"]
    # 2010-12-01 08:26 and 12:00
    assert events.time is not None and events.time.tolist() == [1_291_191_960, 1_291_204_800]


def log(rows: list[tuple[str, str, int, str, float, float]]) -> Events:
    user, item, time, basket, quantity, price = (list(column) for column in zip(*rows, strict=True))
    return Events(
        np.array(user, object),
        np.array(item, object),
        np.array(time, np.int64),
        np.array(basket, object),
        np.array(quantity, np.float64),
        np.array(price, np.float64),
    )


def test_every_rule_drops_its_row_and_says_so_while_repeat_purchases_stay():
    rows = [
        ("ann", "10001", 1, "A1", 1, 1),
        ("ann", "10001", 2, "A2", 1, 1),  # bought again: stays
        ("", "10001", 1, "X1", 1, 1),
        ("ann", "10001", 3, "CA3", -1, 1),
        ("ann", "10002", 3, "A3", 0, 1),
        ("ann", "10002", 3, "A3", 1, 0),
        ("ann", "POST", 3, "A3", 1, 1),
        ("ann", "10001", 2, "A2", 5, 1),  # the line again
    ]
    kept, report = clean(log(rows), CleaningRules(cancelled_prefix="C", product_pattern=r"^\d{5}"))
    assert kept.sequences.items.tolist() == [1, 1]
    assert kept.sequences.baskets.tolist() == [0, 1]
    assert report.counts() == {
        "missing user": 1,
        "cancelled": 1,
        "quantity not above 0": 1,
        "price not above 0": 1,
        "not a product": 1,
        "equal in user, basket and item": 1,
    }
    assert report.dropped[1].example == "row 4: item '10001', basket 'CA3', quantity -1, price 1"
    assert (report.rows_read, report.events, report.users, report.items, report.baskets) == (8, 2, 1, 1, 2)


def test_no_user_id_is_in_the_report_or_in_what_a_split_keeps(tmp_path):
    rows = [("ann-secret", item, i, f"B{i}", 1, 1) for i, item in enumerate("abcd")]
    kept, report = clean(log([*rows, ("", "b", 1, "", 1, 1)]))
    assert kept.users == ("ann-secret",)
    save_split(leave_one_out(kept), kept.vocabulary, tmp_path)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret" not in stored + repr(report).encode()


def test_items_are_numbered_by_falling_popularity_then_by_id():
    rows = [("u", item, i, f"B{i}", 1.0, 1.0) for i, item in enumerate("bcabdcb")]
    kept, _ = clean(log(rows))
    assert kept.vocabulary == ("", "b", "c", "a", "d")
    assert kept.sequences.items.tolist() == [1, 2, 3, 1, 4, 2, 1]


def test_events_are_put_in_time_order_and_baskets_stay_in_one_piece():
    rows = [
        ("u", "late", 9, "B3", 1, 1),
        ("u", "x1", 5, "B2", 1, 1),
        ("u", "first", 1, "B1", 1, 1),
        ("u", "y", 5, "B4", 1, 1),
        ("u", "x2", 6, "B2", 1, 1),
    ]
    kept, _ = clean(log(rows))
    words = [kept.vocabulary[item] for item in kept.sequences.items]
    assert words == ["first", "x1", "x2", "y", "late"]
    assert kept.sequences.baskets.tolist() == [0, 1, 1, 2, 3]
    assert kept.time is not None and kept.time.tolist() == [1, 5, 6, 5, 9]


def test_rare_items_and_users_go_once_or_until_both_minimums_hold():
    rows = [(user, item, 0, f"{user}{item}", 1.0, 1.0) for user, item in ("aX", "aY", "bX", "bY", "cY", "cZ")]
    once, _ = clean(log(rows), CleaningRules(min_item_events=2, min_user_events=2))
    assert once.vocabulary == ("", "X", "Y")
    assert once.sequences.users == 2
    chain = [("a", "X"), ("a", "Y"), ("b", "X"), ("b", "Z"), ("c", "Z"), ("c", "Q"), ("d", "Y")]
    rows = [(user, item, 0, user + item, 1.0, 1.0) for user, item in chain]
    with pytest.raises(DataError, match="none of 7 rows is left"):
        clean(log(rows), CleaningRules(min_item_events=2, min_user_events=2, until_stable=True))


def test_cleaning_everything_away_or_a_broken_pattern_is_refused():
    with pytest.raises(DataError, match=r"none of 3 rows is left \(not a product: 3\)"):
        clean(log([*ROWS]), CleaningRules(product_pattern="never"))
    with pytest.raises(DataError, match="no regular expression"):
        clean(log([*ROWS]), CleaningRules(product_pattern="("))


def interactions(*users: list[list[int]]) -> Interactions:
    """One list of baskets a user."""
    items = np.array([item for user in users for basket in user for item in basket], np.int32)
    baskets = np.array([n for user in users for n, basket in enumerate(user) for _ in basket], np.int32)
    offsets = np.cumsum([0, *(sum(map(len, user)) for user in users)]).astype(np.int64)
    vocabulary = ("", *(f"i{n}" for n in range(1, int(items.max()) + 1)))
    return Interactions(Sequences(items, offsets, baskets), None, vocabulary)


def listed(sequences: Sequences) -> list[list[int]]:
    return [sequences.of(user).tolist() for user in range(sequences.users)]


def test_leave_one_out_tests_on_the_last_new_item_and_validates_on_the_one_before():
    split = leave_one_out(interactions([[1, 2], [3, 1], [4], [2]], [[5, 6]], [[7]]))
    assert listed(split.train) == [[1, 2], [5, 6], [7]]
    assert (listed(split.valid.history), listed(split.valid.targets)) == ([[1, 2]], [[3]])
    assert (listed(split.test.history), listed(split.test.targets)) == ([[1, 2, 3, 1]], [[4]])
    assert split.item_count == 7


def test_leave_one_out_can_take_repeats_as_targets():
    split = leave_one_out(interactions([[1, 2], [3, 1]]), new_only=False)
    assert (listed(split.test.targets), listed(split.valid.targets)) == ([[1]], [[3]])


def test_next_basket_tests_on_the_new_items_of_the_last_basket_that_has_any():
    split = next_basket(
        interactions([[1, 2], [2, 3], [1, 4, 5], [4]], [[1], [6, 7]], [[1, 2, 3]], [[1], [1]])
    )
    assert (listed(split.test.history), listed(split.test.targets)) == ([[1, 2, 2, 3], [1]], [[4, 5], [6, 7]])
    assert (listed(split.valid.history), listed(split.valid.targets)) == ([[1, 2]], [[3]])
    assert listed(split.train) == [[1, 2], [1], [1, 2, 3], [1, 1]]
    assert cold_targets(split) == 4  # 4, 5, 6 and 7; nobody else bought them


def test_a_log_of_one_event_users_cannot_be_split():
    for cut in (leave_one_out, next_basket):
        with pytest.raises(DataError, match="none of 2 users"):
            cut(interactions([[1]], [[2]]))


def test_a_split_is_kept_in_equal_bytes_and_comes_back_equal(tmp_path: Path):
    split, vocabulary = next_basket(interactions([[1, 2], [3], [4]], [[1], [2]])), ("", "a", "é", "c", "d")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_split(split, vocabulary, tmp_path / name)
    for file in ("split.npz", "vocabulary.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    back, words = load_split(tmp_path / "one")
    assert words == vocabulary
    assert back.item_count == 4
    assert listed(back.train) == listed(split.train)
    assert listed(back.test.targets) == [[4], [2]]
    assert [array.dtype for array in back.valid.history[:3]] == [np.int32, np.int64, np.int32]
    (tmp_path / "one" / "split.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="no whole split"):
        load_split(tmp_path / "one")


def test_calibration_histories_are_right_aligned_prefixes_and_repeat_with_their_seed():
    split = leave_one_out(interactions([[1, 2, 3, 4, 5]], [[6, 7, 8, 9]]))
    sample = calibration_rows(split, length=4, count=50, seed=3)["history"]
    assert sample.shape == (50, 4) and sample.dtype == np.int32
    assert set(map(tuple, sample.tolist())) == {
        (0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 2, 3), (0, 0, 0, 6), (0, 0, 6, 7)
    }  # fmt: skip
    assert np.array_equal(sample, calibration_rows(split, length=4, count=50, seed=3)["history"])


def test_online_retail_comes_out_with_the_published_counts(datasets: Path):
    known = public.known("online-retail")
    for layout, name in ((known.layouts[0], "online_retail.parquet"), (known.layouts[2], "events.csv.gz")):
        _, report = clean(read(datasets / "uci-online-retail" / name, layout.columns), known.cleaning)
        assert (report.events, report.users, report.items) == (386_326, 4_334, 3_659)
        assert report.baskets == 18_402


def test_a_public_set_is_taken_in_with_the_hash_of_the_users_copy(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGEPACK_HOME", str(tmp_path))
    with pytest.raises(DataError, match="no copy of it was taken in"):
        public.taken("movielens-1m")
    told = json.loads(public.take("movielens-1m", datasets / "ml-1m-seq", as_json=True))
    copy = public.taken("movielens-1m")
    assert copy.sha256 == told["sha256"] == "d1508db5d1e169bf16421da6068079a375cee47b1788585b9d2c0e173503c9ee"
    copy.path.write_bytes(b"other")
    with pytest.raises(DataError, match="not the file that was taken in"):
        public.taken("movielens-1m")


def test_the_owners_zip_of_movielens_gives_what_the_sequences_give(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    events = read(datasets / "ml-1m-seq" / "sequences.txt.gz")
    ratings = (f"{u}::{i}::5::{n}" for n, (u, i) in enumerate(zip(events.user, events.item, strict=True)))
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/README", "")
        archive.writestr("ml-1m/ratings.dat", "\n".join(ratings))
    monkeypatch.setenv("EDGEPACK_HOME", str(tmp_path / "home"))
    assert "took ratings.dat" in public.take("movielens-1m", tmp_path / "ml-1m.zip")
    copy = public.taken("movielens-1m")
    rules = public.known("movielens-1m").cleaning
    ours, _ = clean(read(copy.path, copy.columns, copy.format), rules)
    assert np.array_equal(ours.sequences.items, clean(events, rules)[0].sequences.items)


def test_the_other_beauty_is_not_taken_for_this_one(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGEPACK_HOME", str(tmp_path))
    assert "took" in public.take("amazon-beauty-5core", datasets / "amazon-beauty-5core")
    assert "took" in public.take("amazon-beauty-bert4rec", datasets / "amazon-beauty-bert4rec")
    wrong = write(tmp_path / "beauty.txt.gz", "u1 a b c\n")
    with pytest.raises(DataError, match="1 users, 3 items, 3 events; amazon-beauty-5core has 22,363"):
        public.take("amazon-beauty-5core", wrong)
    with pytest.raises(
        DataError, match=r"holds no file of online-retail; it is one of online_retail\.parquet"
    ):
        public.take("online-retail", wrong)


def test_an_unknown_set_is_told_the_nearest_name_and_a_known_one_its_terms():
    with pytest.raises(DataError, match="Did you mean 'movielens-1m'"):
        public.known("movielens1m")
    for name, known in public.SETS.items():
        told = public.describe(name)
        assert known.page in told and known.licence in told
