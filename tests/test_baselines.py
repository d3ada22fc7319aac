"""The four baselines by hand on tiny logs, and on real ones against figures that were measured before."""

from pathlib import Path

import numpy as np
import pytest

from edgepack.data import public
from edgepack.data.clean import clean
from edgepack.data.read import read
from edgepack.data.split import SPLITS
from edgepack.data.types import Sequences
from edgepack.errors import LimitError
from edgepack.evaluate.ranking import chunks, evaluate
from edgepack.train.baselines import BASELINES, why_not


def sequences(*rows: list[int]) -> Sequences:
    items = np.array([item for row in rows for item in row], np.int32)
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return Sequences(items, offsets, np.arange(len(items), dtype=np.int32))


def test_popularity_scores_everyone_by_the_counts():
    scores = BASELINES["popularity"](sequences([1, 2], [2], [2, 3]), 4)(sequences([1], []))
    assert scores.tolist() == [pytest.approx([0, 1 / 3, 1, 1 / 3, 0])] * 2


def test_item_knn_weighs_the_cosine_with_each_item_by_its_recency():
    scores = BASELINES["item-knn"](sequences([1, 2], [1, 2], [2, 3]), 3)(sequences([1, 3]))
    one_two, three_two = 2 / np.sqrt(2 * 3), 1 / np.sqrt(1 * 3)
    assert scores[0, 2] == pytest.approx(0.8 * one_two + three_two, rel=1e-4)
    assert scores[0, 1] == pytest.approx(0, abs=1e-5)


def test_the_markov_chain_sums_what_followed_each_of_the_last_three_items():
    train = sequences([1, 2, 3, 4], [3, 5], [2, 9, 6])
    scores = BASELINES["markov-chain"](train, 9)(sequences([8, 8, 1, 2, 3]))
    # After 3: 4 and 5 half each; two after 2: 4 and 6 half each; three after 1: always 4.
    assert scores[0, 4] == pytest.approx(1 / 2 + 1 / 2 * 1 / 2 + 1 / 3 * 1, rel=1e-4)
    assert scores[0, 5] == pytest.approx(1 / 2, rel=1e-4)
    assert scores[0, 6] == pytest.approx(1 / 2 * 1 / 2, rel=1e-4)
    assert scores[0, 8] == pytest.approx(0, abs=1e-5)


def test_ease_is_the_closed_form_of_the_ridge_regression_without_a_diagonal():
    train = sequences([1, 2, 3], [1, 2], [2, 3], [1, 3], [1])
    scores = BASELINES["ease"](train, 3)(sequences([1, 3]))
    taken = np.array([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0]], float)
    ridge = 1.5 * taken.sum() / 3
    # Each column on its own: the best weights of the other two items.
    others = taken[:, [0, 2]]
    weights = np.linalg.solve(others.T @ others + ridge * np.eye(2), others.T @ taken[:, 1])
    assert scores[0, 2] == pytest.approx(weights.sum(), abs=1e-5)


@pytest.mark.parametrize("name", list(BASELINES))
def test_every_baseline_answers_an_empty_history_by_popularity(name: str):
    scores = BASELINES[name](sequences([1, 2], [3, 2], [2, 3]), 4)(sequences([]))
    assert scores.dtype == np.float32 and scores.shape == (1, 5)
    assert np.isfinite(scores).all()
    assert np.argsort(-scores[0], kind="stable")[:2].tolist() == [2, 3]


def test_ease_says_what_memory_it_would_need_above_its_limit():
    assert why_not("ease", 54_542) == "not run: needs 59 GB"
    assert why_not("ease", 20_000) == why_not("popularity", 10**6) == ""
    with pytest.raises(LimitError, match="Use it on up to 20000 items"):
        BASELINES["ease"](sequences([1]), 20_001)


def measured(datasets: Path, name: str, file: str, baselines: tuple[str, ...]) -> dict[str, dict[str, float]]:
    known = public.known(name)
    layout = next(layout for layout in known.layouts if layout.file == Path(file).name)
    kept, _ = clean(read(datasets / file, layout.columns, layout.format), known.cleaning)
    split = SPLITS[known.split](kept)
    found = {}
    for baseline in baselines:
        score = BASELINES[baseline](split.train, split.item_count)
        rated = evaluate((score(part) for part in chunks(split.test.history, 512)), split.test)
        found[baseline] = {metric: rated.mean(metric) for metric in rated.metrics}
    return found


def test_on_movielens_the_markov_chain_is_as_strong_as_measured_before(datasets: Path):
    found = measured(datasets, "movielens-1m", "ml-1m-seq/sequences.txt.gz", ("popularity", "markov-chain"))
    assert found["popularity"]["hr@10"] == pytest.approx(0.039, abs=0.002)
    assert found["popularity"]["ndcg@10"] == pytest.approx(0.019, abs=0.001)
    assert found["markov-chain"]["hr@10"] == pytest.approx(0.227, abs=0.006)
    assert found["markov-chain"]["ndcg@10"] == pytest.approx(0.133, abs=0.004)


def test_on_online_retail_baskets_ease_is_as_strong_as_measured_before(datasets: Path):
    found = measured(datasets, "online-retail", "uci-online-retail/online_retail.parquet", ("ease",))["ease"]
    assert found["hr@10"] == pytest.approx(0.384, abs=0.015)
    assert found["ndcg@10"] == pytest.approx(0.082, abs=0.005)
    assert found["recall@10"] == pytest.approx(0.069, abs=0.004)
