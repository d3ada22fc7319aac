"""A model with a search text beside the history: its data, its two graphs, every runtime, its goldens."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.bundle import goldens
from edgepack.config import load_config
from edgepack.data import clean, query, read, shop, shop_search
from edgepack.data.split import calibration_rows, leave_one_out, load_split, save_split
from edgepack.data.types import Split, rows
from edgepack.errors import ConfigError, DataError
from edgepack.rows import QueryHashing
from edgepack.stages import Place, logs
from edgepack.store import Store
from edgepack.train import draw
from edgepack.train.baselines import query_match
from edgepack.train.settings import TrainingSettings

HASHING = QueryHashing(length=8, buckets=256)
LENGTH = 6
LOG = """user,item,time,typed
a,lamp,1,red lamp
a,vase,2,
a,tray,3,tray oak
b,vase,1,vase
b,lamp,2,LAMP
b,tray,3,!!!
c,tray,1,a tray
c,vase,2,vase
c,lamp,3,lamp
"""


@pytest.fixture(scope="module")
def small() -> Split:
    """The smallest shop, split, with 60 shoppers."""
    events = shop.make_shop(500, 60, 3)
    events = events._replace(query=shop_search.queries(events.item, 3))
    return searched(clean.clean(events)[0])


def searched(interactions: clean.Interactions) -> Split:
    index, ids = query.indexed(interactions.queries, HASHING)
    sequences = interactions.sequences._replace(queries=index)
    return leave_one_out(interactions._replace(sequences=sequences))._replace(queries=ids)


def test_the_search_of_an_event_stays_with_it_from_the_log_to_what_a_model_is_fed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    events = read.read(tmp_path / "log.csv", read.Columns(query="typed"))
    interactions, _ = clean.clean(events)
    split = searched(interactions)
    assert interactions.vocabulary[1:] == ("lamp", "tray", "vase")

    fed = rows(split, split.test, LENGTH)
    expected = [query.hashed(text, HASHING) for text in ("tray oak", "!!!", "lamp")]
    assert np.array_equal(fed["query"], expected)
    assert not fed["query"][1].any()
    assert fed["history"].tolist() == [[0, 0, 0, 0, 1, 3], [0, 0, 0, 0, 3, 1], [0, 0, 0, 0, 2, 3]]

    save_split(split, interactions.vocabulary, tmp_path)
    again, _ = load_split(tmp_path)
    assert np.array_equal(rows(again, again.test, LENGTH)["query"], fed["query"])
    assert np.array_equal(again.train.queries, split.train.queries)


def test_each_target_is_taught_with_the_search_that_led_to_it(small: Split) -> None:
    settings = TrainingSettings(batch_size=1_000, query_dropout=0.0)
    history, targets, _, taught = next(draw.position_batches(small, LENGTH, settings)(0))
    assert taught.shape == (*history.shape, HASHING.length)
    known: dict[int, set[bytes]] = {}
    for item, row in zip(small.train.items, small.queries[small.train.queries], strict=True):
        known.setdefault(int(item), set()).add(row.tobytes())
    nothing = np.zeros(HASHING.length, np.int32).tobytes()
    places = np.argwhere(targets > 0)
    pairs = [(int(targets[i, j]), taught[i, j].tobytes()) for i, j in places]
    assert all(words in known[item] or words == nothing for item, words in pairs)
    assert 0.5 < np.mean([words != nothing for _, words in pairs]) < 0.8


def test_searches_are_hidden_in_training_at_the_asked_rate(small: Split) -> None:
    def silent(rate: float) -> float:
        settings = TrainingSettings(batch_size=1_000, query_dropout=rate)
        _, targets, _, taught = next(draw.position_batches(small, LENGTH, settings)(0))
        return float((~taught.any(axis=2))[targets > 0].mean())

    assert silent(1.0) == 1.0
    usual = silent(0.0)
    assert silent(0.5) == pytest.approx(usual + 0.5 * (1 - usual), abs=0.06)


def test_calibration_searches_lead_to_the_event_after_the_cut(small: Split) -> None:
    fed = calibration_rows(small, LENGTH, 200, seed=4)
    assert fed["query"].shape == (200, HASHING.length)
    assert 0.4 < fed["query"].any(axis=1).mean() < 0.8


def test_the_shop_types_parts_of_the_titles_and_always_the_same() -> None:
    items = np.array(["basic-0001", "piece-0000-03", "piece-0001-03"] * 400, object)
    typed = shop_search.queries(items, 5)
    assert typed.tolist() == shop_search.queries(items, 5).tolist()
    assert np.mean(typed == "") == pytest.approx(0.38, abs=0.05)
    assert shop_search.title("piece-0000-03")["style"] == "amber"
    assert shop_search.title("piece-0001-03")["style"] == "20cm"
    assert "style" not in shop_search.title("basic-0001")
    nouns = [shop_search.title(item)["noun"] in text.lower() for item, text in zip(items, typed, strict=True)]
    assert np.mean(np.array(nouns)[typed != ""]) > 0.6


def test_the_lexical_baseline_finds_what_was_typed_for_it_before(small: Split) -> None:
    scorer = query_match(small)
    places = np.flatnonzero(small.train.queries)[:50]
    scores = scorer(small.queries[small.train.queries[places]])
    targets = scores[np.arange(50), small.train.items[places]]
    rank = (scores >= targets[:, None]).sum(axis=1)
    assert np.mean(rank <= 20) > 0.7
    silent = scorer(np.zeros((1, HASHING.length), np.int32))[0]
    assert silent.argmax() == np.bincount(small.train.items).argmax()


def test_a_log_without_searches_is_refused_for_a_search_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the log has no searches.*data\.columns\.query"):
        logs.split_log(place_of(tmp_path, ""))


def test_a_search_model_is_not_split_by_baskets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'the split is "next-basket".*needs "leave-one-out"'):
        logs.split_log(place_of(tmp_path, 'split = "next-basket"'))


def place_of(folder: Path, data: str) -> Place:
    (folder / "log.csv").write_text(LOG)
    (folder / "edgepack.toml").write_text(
        f'[data]\npath = "log.csv"\n{data}\n[model]\nfamily = "twotower"\nquery_length = 8\n'
    )
    config = load_config(folder / "edgepack.toml")
    return Place(config, folder, Store(folder / "store"), lambda what, done, total: None)


def test_a_model_of_the_users_own_takes_no_search(tmp_path: Path) -> None:
    (tmp_path / "edgepack.toml").write_text(
        '[data]\npath = "x.csv"\n[model]\nfile = "own.keras"\nquery_length = 8\n'
    )
    with pytest.raises(ConfigError, match=r'query_length: is set beside model\.file = "own\.keras"'):
        load_config(tmp_path / "edgepack.toml")


def test_golden_rows_have_searches_histories_both_and_neither() -> None:
    ngrams = goldens.Ngrams(np.ones(HASHING.buckets + 1), HASHING.length)
    found = goldens.invented_rows(np.ones(51), LENGTH, seed=1, count=64, ngrams=ngrams)
    kinds = {(bool(h.any()), bool(q.any())) for h, q in zip(found["history"], found["query"], strict=True)}
    assert kinds == {(False, False), (True, False), (False, True), (True, True)}
    assert not found["history"][0].any() and not found["query"][0].any()
    assert not ((found["query"][:, 1:] > 0) & (found["query"][:, :-1] == 0)).any()  # left-aligned

    generator = np.random.default_rng(2)
    made = goldens.make_goldens(
        found,
        generator.normal(size=(64, 51)).astype(np.float32),
        k=5,
        filter_seen=True,
        largest_difference=0.0,
        runtime="test",
    )
    again = goldens.encoded(made, LENGTH, HASHING.length)
    kept = {row.tobytes() for row in np.hstack([found["history"], found["query"]])}
    assert {row.tobytes() for row in np.hstack([again["history"], again["query"]])} <= kept
    assert any(case.query for case in made.cases)
