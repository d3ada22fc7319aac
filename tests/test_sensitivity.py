"""What one layer or one group of a table's rows costs alone; and nothing is left changed."""

import msgspec
import numpy as np
import pytest
from edgepack.models import sasrec

from edgepack.compress.sensitivity import losses, lossy, units
from edgepack.data.types import EvaluationSet, Sequences
from edgepack.errors import MeasureError
from edgepack.evaluate.paired import drop
from edgepack.evaluate.ranking import evaluate, overlap
from edgepack.keras2 import deterministic
from edgepack.report import markdown
from edgepack.results import Sensitivity
from tests.sample_result import sample_result

ITEMS, LENGTH, USERS = 60, 8, 80
HISTORIES = np.random.default_rng(0).integers(1, ITEMS + 1, (USERS, LENGTH)).astype(np.int32)
ROWS = {"head": np.arange(1, 11), "tail": np.arange(11, ITEMS + 1)}


def one_each(items: np.ndarray) -> Sequences:
    offsets = np.arange(USERS + 1, dtype=np.int64)
    return Sequences(items.astype(np.int32), offsets, np.zeros(USERS, np.int32))


TARGETS = np.random.default_rng(1).integers(1, ITEMS + 1, USERS)
# Nobody's history is filtered: it holds the item just before the target's number.
SET = EvaluationSet(one_each(1 + TARGETS % ITEMS), one_each(TARGETS))


@pytest.fixture(scope="module")
def serving():
    deterministic(3)
    return sasrec.build(ITEMS, LENGTH, width=8, ffn_width=8, blocks=1).serving


def found(serving, compressed):
    parts = units(serving, table="item_embedding", tied="scores", rows=ROWS)
    done = losses(serving, compressed, parts, rows=HISTORIES, users=SET)
    return {one.unit: one for one in done}, [one.unit for one in done]


def ranked(serving):
    return evaluate([serving(HISTORIES, training=False).numpy()], SET)


def test_a_table_is_told_by_groups_of_its_rows_and_its_tied_twin_goes_with_it(serving):
    parts = {one.name: one for one in units(serving, table="item_embedding", tied="scores", rows=ROWS)}
    assert {"item_embedding: head", "item_embedding: tail", "positions", "block0_query"} <= set(parts)
    assert "scores" not in parts
    assert parts["item_embedding: head"].weights == {"item_embedding/embeddings": 0, "scores/kernel": 1}
    assert "item_embedding: all rows" in {one.name for one in units(serving, table="item_embedding")}
    assert "scores" in {one.name for one in units(serving)}


def test_equal_weights_cost_nothing(serving):
    one, _ = found(serving, {**lossy(serving, 8), **exact(serving)})
    assert {(unit.drop.value, unit.overlap_at_10.value) for unit in one.values()} == {(0.0, 1.0)}


def exact(serving):
    return {
        f"{layer.name}/{variable.name.split('/')[-1].split(':')[0]}": variable.numpy()
        for layer in serving.layers
        for variable in layer.weights
    }


def test_a_unit_costs_what_the_model_loses_with_its_weights_and_the_worst_comes_first(serving):
    before, kept = ranked(serving), serving.get_weights()
    bad = exact(serving)
    table = np.random.default_rng(2).normal(0, 0.3, bad["item_embedding/embeddings"].shape).astype(np.float32)
    bad["item_embedding/embeddings"], bad["scores/kernel"] = table, np.ascontiguousarray(table.T)
    by_name, order = found(serving, bad)
    assert set(order[:2]) == {"item_embedding: head", "item_embedding: tail"}
    assert all(by_name[name].overlap_at_10.value == 1 for name in order[2:])
    assert [by_name[f"item_embedding: {name}"].weights for name in ROWS] == [80, 400]
    for mine, theirs in zip(kept, serving.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)

    rows = ROWS["tail"]
    embeddings, scores = serving.get_layer("item_embedding").embeddings, serving.get_layer("scores").kernel
    plain = embeddings.numpy()
    mixed = np.array(plain)
    mixed[rows] = table[rows]
    try:
        embeddings.assign(mixed)
        scores.assign(mixed.T)
        after = ranked(serving)
    finally:
        embeddings.assign(plain)
        scores.assign(plain.T)
    tail = by_name["item_embedding: tail"]
    assert tail.drop.value == pytest.approx(
        drop("n", before.metrics["ndcg@10"], after.metrics["ndcg@10"], 1).value
    )
    assert tail.overlap_at_10.value == pytest.approx(overlap(before.top10, after.top10).mean())


def test_weights_come_back_even_when_scoring_fails(serving):
    kept = serving.get_weights()
    broken = {name: np.full_like(values, np.nan) for name, values in exact(serving).items()}
    with pytest.raises(MeasureError, match="NaN"):
        found(serving, broken)
    for mine, theirs in zip(kept, serving.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_rounding_errs_by_half_a_step_keeps_zeros_and_costs_more_with_fewer_bits(serving):
    plain = exact(serving)
    for bits in (8, 4):
        for name, values in lossy(serving, bits).items():
            step = np.abs(plain[name]).max() / (2 ** (bits - 1) - 1)
            assert np.abs(values - plain[name]).max() <= step / 2 + 1e-7
            assert len(np.unique(np.round(values / step))) <= 2**bits - 1
    kept = {
        bits: sum(one.overlap_at_10.value for one in found(serving, lossy(serving, bits))[0].values())
        for bits in (8, 3)
    }
    assert kept[8] > kept[3]


def test_the_report_shows_every_unit_with_its_interval(serving):
    by_name, order = found(serving, lossy(serving, 4))
    one = Sensitivity(bits=4, users=USERS, units=tuple(by_name[name] for name in order))
    told = markdown.render(msgspec.structs.replace(sample_result(), sensitivity=(one,)))
    assert "### Loss of each layer alone, rounded to 4 bits, on 80 validation users" in told
    assert all(f"| {name.replace('_', chr(92) + '_')} |" in told for name in order)
