"""Ranking metrics against hand computation and brute force; the paired bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.data.types import EvaluationSet, Sequences
from edgepack.errors import MeasureError
from edgepack.evaluate.paired import drop, estimate
from edgepack.evaluate.ranking import UNRANKED, evaluate, overlap, ranks, top_k


def sequences(*rows: list[int]) -> Sequences:
    items = np.array([item for row in rows for item in row], np.int32)
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return Sequences(items, offsets, np.arange(len(items), dtype=np.int32))


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


NOBODY = sequences([])


def test_a_rank_counts_the_items_that_score_higher_and_the_ones_that_tie():
    table = scores([99, 5, 4, 4, 3, 3, 3])
    assert ranks(table, NOBODY, sequences([1])).tolist() == [1]
    assert ranks(table, NOBODY, sequences([2])).tolist() == [3]
    assert ranks(table, NOBODY, sequences([6])).tolist() == [6]


def test_targets_that_tie_with_each_other_take_different_ranks_at_the_end_of_the_tie():
    table = scores([0, 1, 1, 1, 0])
    assert sorted(ranks(table, NOBODY, sequences([1, 3])).tolist()) == [2, 3]


def test_seen_items_leave_the_race_and_a_seen_target_is_unranked():
    table = scores([0, 9, 8, 7])
    seen = sequences([1])
    assert ranks(table, seen, sequences([3])).tolist() == [2]
    assert ranks(table, seen, sequences([3]), filter_seen=False).tolist() == [3]
    assert ranks(table, seen, sequences([1])).tolist() == [UNRANKED]


def test_every_metric_of_one_user_with_two_targets_is_the_hand_computed_one():
    # Items by score: 4 3 1 2 5; item 3 is seen, so targets 4 and 2 rank 1 and 3 among 4 1 2 5.
    users = EvaluationSet(sequences([3]), sequences([4, 2]))
    found = evaluate([scores([0, 3, 2, 4, 5, 1])], users, ks=(2, 3))
    one = {name: float(values[0]) for name, values in found.metrics.items()}
    ideal = 1 + 1 / np.log2(3)
    assert one["ndcg@2"] == pytest.approx(1 / ideal)
    assert one["ndcg@3"] == pytest.approx((1 + 1 / 2) / ideal)
    assert (one["hr@2"], one["recall@2"], one["precision@2"], one["f1@2"]) == (1, 0.5, 0.5, 0.5)
    assert (one["recall@3"], one["precision@3"]) == (1, pytest.approx(2 / 3))
    assert one["f1@3"] == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert one["mrr"] == 1
    # Pairs of a target and another item in the race: 4>1 4>5 2>5 are right, 2>1 is wrong.
    assert one["auc"] == pytest.approx(3 / 4)
    assert found.top10[0].tolist() == [4, 1, 2, 5, 0, 0, 0, 0, 0, 0]


def test_with_one_target_a_user_no_f1_is_given_and_recall_is_the_hit_rate():
    users = EvaluationSet(sequences([1], [2]), sequences([2], [1]))
    found = evaluate([scores([0, 1, 2, 3], [0, 1, 2, 3])], users, ks=(1,)).metrics
    assert "f1@1" not in found
    assert found["recall@1"].tolist() == found["hr@1"].tolist() == [0, 0]
    assert found["mrr"].tolist() == [0.5, 0.5]


def test_a_model_that_scores_everything_alike_gets_nothing_for_its_ties():
    users = EvaluationSet(sequences([1]), sequences([2]))
    found = evaluate([np.zeros((1, 31), np.float32)], users)
    assert found.mean("ndcg@10") == 0
    assert found.mean("auc") == 0


def test_a_target_that_is_filtered_counts_as_a_miss_everywhere():
    users = EvaluationSet(sequences([1]), sequences([1]))
    found = evaluate([scores([0, 9, 1, 2])], users)
    assert {name: float(values[0]) for name, values in found.metrics.items()} == dict.fromkeys(
        found.metrics, 0.0
    )


def test_chunks_of_any_size_give_the_same_evaluation():
    generator = np.random.default_rng(0)
    table = generator.integers(0, 6, (50, 21)).astype(np.float32)
    history = sequences(*(generator.integers(1, 21, 3).tolist() for _ in range(50)))
    targets = sequences(*(generator.choice(np.arange(1, 21), 2, replace=False).tolist() for _ in range(50)))
    users = EvaluationSet(history, targets)
    whole = evaluate([table], users)
    parts = evaluate((table[i : i + 7] for i in range(0, 50, 7)), users)
    assert np.array_equal(whole.top10, parts.top10)
    assert all(np.array_equal(whole.metrics[name], parts.metrics[name]) for name in whole.metrics)


@pytest.mark.parametrize("rows", [1, 3])
def test_scores_for_too_few_or_too_many_users_are_refused(rows: int):
    users = EvaluationSet(sequences([1], [1]), sequences([2], [2]))
    with pytest.raises(MeasureError, match=f"scores of {rows} users for 2"):
        evaluate([np.zeros((rows, 4), np.float32)], users)


def test_nan_scores_and_targets_beyond_the_catalogue_are_refused():
    with pytest.raises(MeasureError, match="user 1 hold NaN"):
        ranks(scores([0, 1], [0, np.nan]), sequences([], []), sequences([1], [1]))
    with pytest.raises(MeasureError, match="item 7 and scores for 2 items"):
        ranks(scores([0, 1, 2]), NOBODY, sequences([7]))


def test_equal_scores_are_listed_by_lower_index():
    table = scores([9, 1, 3, 3, 3, 2])
    assert top_k(table, NOBODY, 2).tolist() == [[2, 3]]
    assert top_k(table, sequences([3]), 3).tolist() == [[2, 4, 5]]


def test_overlap_is_the_share_of_the_first_list_found_in_the_second():
    first = np.array([[1, 2, 3, 4], [5, 6, 0, 0]], np.int32)
    second = np.array([[4, 9, 1, 8], [6, 7, 0, 0]], np.int32)
    assert overlap(first, second).tolist() == [0.5, 0.5]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_ranks_and_lists_agree_with_brute_force(seed: int):
    generator = np.random.default_rng(seed)
    width = int(generator.integers(4, 15))
    table = generator.integers(0, 4, (1, width)).astype(np.float32)
    seen = generator.choice(np.arange(1, width), int(generator.integers(0, 3)), replace=False).tolist()
    targets = generator.choice(np.arange(1, width), int(generator.integers(1, 4)), replace=False).tolist()
    race = [item for item in range(1, width) if item not in seen]
    # The worst order that the scores allow: of equal items the targets come last.
    order = sorted(race, key=lambda item: (-table[0, item], item in targets))
    expected = sorted(order.index(t) + 1 if t in race else UNRANKED for t in targets)
    assert sorted(ranks(table, sequences(seen), sequences(targets)).tolist()) == expected
    listed = sorted(race, key=lambda item: (-table[0, item], item))[:3]
    assert top_k(table, sequences(seen), 3)[0].tolist() == listed + [0] * (3 - len(listed))


def test_an_estimate_covers_the_mean_about_as_widely_as_the_normal_law_says():
    values = np.random.default_rng(1).random(4_000)
    found = estimate(values, seed=0)
    width = 2 * 1.96 * values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert estimate(values, seed=0) == found


def test_a_drop_of_every_user_alike_has_no_interval_because_the_test_is_paired():
    before = np.random.default_rng(2).random(500)
    found = drop("ndcg@10", before, before * 0.98, seed=0)
    assert [found.value, found.low, found.high, found.upper] == pytest.approx([0.02] * 4)


def test_a_gain_is_a_negative_drop_and_the_bounds_are_in_order():
    generator = np.random.default_rng(3)
    before = generator.random(300)
    found = drop("hr@10", before, before + 0.1 * generator.random(300), seed=0)
    assert found.value < 0
    assert found.low < found.value < found.upper < found.high


def test_a_drop_without_users_with_nan_or_of_a_dead_model_is_refused():
    some = np.ones(3)
    with pytest.raises(MeasureError, match="there are no users"):
        estimate(np.zeros(0), seed=0)
    with pytest.raises(MeasureError, match="a metric is NaN"):
        drop("mrr", some, np.array([1, np.nan, 1]), seed=0)
    with pytest.raises(MeasureError, match="3 and 2 users"):
        drop("mrr", some, np.ones(2), seed=0)
    with pytest.raises(MeasureError, match="the float model scores 0"):
        drop("mrr", np.zeros(3), some, seed=0)
