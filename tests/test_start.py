"""The closed-form start: it is what the formula says, ranks untrained, and refuses what it does not fit."""

from pathlib import Path

import numpy as np
import pytest
from edgepack.models import mf, sasrec, twotower
from numpy.typing import NDArray

from edgepack.config import load_config
from edgepack.data.split import load_split
from edgepack.data.types import EvaluationSet, Sequences, Split, padded
from edgepack.errors import ConfigError, LimitError
from edgepack.evaluate.ranking import evaluate
from edgepack.keras2 import deterministic
from edgepack.stages import Place, configured, logs, models
from edgepack.store import Store
from edgepack.train import start
from edgepack.train.baselines import EASE_MAX_ITEMS
from edgepack.train.fit import fit, predict
from edgepack.train.settings import TrainingSettings

V, LENGTH, WIDTH = 40, 12, 4


def _sequences(users: list[list[list[int]]]) -> Sequences:
    """Lay out the baskets of users."""
    items = [item for baskets in users for basket in baskets for item in basket]
    marks = [mark for baskets in users for mark, basket in enumerate(baskets) for _ in basket]
    offsets = np.cumsum([0, *(sum(map(len, baskets)) for baskets in users)])
    return Sequences(np.array(items, np.int32), offsets.astype(np.int64), np.array(marks, np.int32))


def _planted(users: int = 300) -> Split:
    """Give every user a quarter of the catalogue to choose from: three baskets of two, a fourth held back."""
    generator = np.random.default_rng(3)
    homes = generator.integers(0, 4, users) * (V // 4)
    walks = [generator.permutation(V // 4)[:8].reshape(4, 2) + home + 1 for home in homes]
    known, held = (_sequences([walk[part].tolist() for walk in walks]) for part in (slice(3), slice(3, 4)))
    evaluated = EvaluationSet(known, held)
    return Split(known, evaluated, evaluated, V)


def _by_the_formula(train: Sequences, width: int) -> NDArray[np.float64]:
    """Return rows 1..V of the table by dense linear algebra alone."""
    taken = np.zeros((train.users, V))
    for user in range(train.users):
        taken[user, train.of(user) - 1] = 1
    inverse = np.linalg.inv(taken.T @ taken + 15 * taken.sum() / V * np.eye(V))
    weight = np.maximum(taken.sum(0), 1) ** 0.25
    wanted = -inverse / np.sqrt(np.outer(np.diag(inverse), np.diag(inverse))) * np.outer(weight, weight)
    diagonal = np.zeros(V)
    for _ in range(4):
        values, vectors = np.linalg.eigh(wanted - np.diag(np.diag(wanted)) + np.diag(diagonal))
        axes = vectors[:, -width:] * np.sqrt(np.maximum(values[-width:], 0))
        diagonal = (axes**2).sum(1)
    rows = axes / weight[:, None] * start.trend(train, V)[1:, None] ** 0.75
    return np.asarray(rows * np.sqrt(V / 2) / np.linalg.norm(rows))


def test_the_table_is_the_weighted_axes_of_the_partial_correlations() -> None:
    train = _planted().train
    rows, wanted = start.ease_rows(train, V, WIDTH), _by_the_formula(train, WIDTH)
    assert rows.shape == (V + 1, WIDTH)
    assert rows.dtype == np.float32
    assert not rows[0].any()
    # Axes have no sign and, where two are equally long, no direction: what they make of the items has both.
    np.testing.assert_allclose(rows[1:] @ rows[1:].T, wanted @ wanted.T, atol=1e-6)


def test_a_table_wider_than_the_catalogue_ends_in_zeros() -> None:
    rows = start.ease_rows(_planted().train, V, V + 3)
    assert not rows[:, V - 1 :].any()
    lengths = (rows**2).sum(axis=0)
    assert lengths[0] == lengths.max() > 0


def test_the_trend_is_the_share_of_customers_who_came_last() -> None:
    train = _sequences([[[1], [2]], [[1, 3], [2, 1]], [[2], [4]], [[5]], []])
    # Of 8 first takes 3 fell into a last basket of several: twice item 2, once item 4.
    mean = 3 / 8
    assert start.trend(train, 5)[1:] == pytest.approx(
        [10 / 12, (2 / mean + 10) / 13, 10 / 11, (1 / mean + 10) / 11, 10 / 11]
    )


def test_where_nobody_has_two_baskets_there_is_no_trend() -> None:
    assert start.trend(_sequences([[[1, 2]], [[3]]]), 3).tolist() == [1, 1, 1, 1]


def test_serving_sums_the_rows_of_a_history_and_a_tenth_of_the_mean_user(tmp_path: Path) -> None:
    split = _planted()
    graphs = _started(split, tmp_path)
    rows = start.ease_rows(split.train, V, WIDTH).astype(np.float64)
    mean = np.mean([rows[split.train.of(u)].sum(0) / 6**0.5 for u in range(split.train.users)], axis=0)
    histories = np.array([[0] * (LENGTH - 3) + [7, 1, 7], [0] * LENGTH], np.int32)
    taken = np.stack([(2 * rows[7] + rows[1]) / 3**0.5, np.zeros(WIDTH)])
    found = next(iter(predict(graphs.serving, histories)))
    np.testing.assert_allclose(found, (taken + 0.1 * mean) @ rows.T, rtol=1e-4, atol=1e-5)


def test_untrained_it_ranks_planted_items_as_no_random_start_does(tmp_path: Path) -> None:
    split = _planted()
    deterministic(1)
    random = mf.build(V, LENGTH, width=WIDTH)
    histories = padded(split.valid.history, LENGTH)
    planted, chance = (
        evaluate(predict(graphs.serving, histories), split.valid).mean("ndcg@10")
        for graphs in (_started(split, tmp_path), random)
    )
    # Of the own quarter four items are left, two of them held back: no model can put those two first.
    assert planted > 0.6
    assert chance < 0.2


CONFIG = """
[data]
path = "log.csv"
split = "next-basket"
[data.columns]
basket = "basket"
[model]
family = "mf"
history_length = 6
[model.hyper]
width = 4
[training]
start = "ease"
epochs = 0
"""


def test_a_configuration_may_keep_the_start_as_it_is(tmp_path: Path) -> None:
    walks = np.random.default_rng(4).integers(0, 9, (40, 6))
    lines = (f"u{u},i{item},{n},{u}-{n // 2}" for u, walk in enumerate(walks) for n, item in enumerate(walk))
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time,basket", *lines]) + "\n")
    path = tmp_path / "edgepack.toml"
    path.write_text(CONFIG)
    place = Place(load_config(path), tmp_path, Store(tmp_path / "store"), lambda *line: None)
    kept = logs.split_log(place)
    split, _ = load_split(kept.path)
    model = configured.model(place, split.item_count)
    trained = models.train(place, kept, model, 1)
    assert (trained.path / "curve.json").read_text() == "[]"
    serving = models.trained_graphs(models.Trained(model, trained)).serving
    wanted = start.ease_rows(split.train, split.item_count, 4)
    np.testing.assert_allclose(serving.get_layer("scores").kernel.numpy().T, wanted, rtol=1e-5)


def _started(split: Split, work: Path) -> mf.Graphs:
    graphs = mf.build(V, LENGTH, width=WIDTH)
    start.from_ease(graphs, split)
    fit(graphs, split, TrainingSettings(epochs=0), work=work, tell=lambda *line: None)
    return graphs


@pytest.mark.parametrize("family", ["sasrec", "twotower"])
def test_a_model_of_another_make_is_refused(family: str) -> None:
    searched = {"query_length": 3, "query_buckets": 9}
    graphs = sasrec.build(V, LENGTH) if family == "sasrec" else twotower.build(V, LENGTH, **searched)
    with pytest.raises(ConfigError, match=f"does not fit the model '{family}'"):
        start.from_ease(graphs, _planted())


def test_a_catalogue_too_large_for_the_inverse_is_refused() -> None:
    with pytest.raises(LimitError, match="not run: needs"):
        start.ease_rows(_planted().train, EASE_MAX_ITEMS + 1, WIDTH)


def _dense_axes(train: Sequences, width: int) -> NDArray[np.float64]:
    counts = np.zeros((V + 1, V + 1))
    for user in range(train.users):
        walk = train.of(user)
        for lag, worth in ((1, 1.0), (2, 0.6), (3, 0.4), (4, 0.3), (5, 0.2)):
            for before, after in zip(walk, walk[lag:], strict=False):
                counts[before, after] += worth
                counts[after, before] += worth
    scale = 1 / np.sqrt(counts.sum(axis=1) + 2)
    values, vectors = np.linalg.eigh(counts * np.outer(scale, scale))
    return np.asarray(vectors[:, -width:] * np.sqrt(np.maximum(values[-width:], 0)))


def test_neighbours_are_the_leading_eigenvectors_of_the_normalized_graph() -> None:
    split = _planted()
    found, wanted = start.neighbour_axes(split.train, V, WIDTH), _dense_axes(split.train, WIDTH)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-6)
    assert not found[0].any()


def test_a_table_that_begins_at_neighbours_has_its_groups_and_random_lengths() -> None:
    split = _planted()
    deterministic(5)
    graphs = sasrec.build(V + 1, LENGTH, width=8, ffn_width=8)  # one item more, that nobody took
    table = graphs.training.get_layer("item_embedding")
    before = table.get_weights()[0]
    start.from_neighbours(graphs, split._replace(item_count=V + 1))
    rows = table.get_weights()[0]
    np.testing.assert_array_equal(rows[[0, V + 1]], before[[0, V + 1]])
    unit = rows[1 : V + 1] / np.linalg.norm(rows[1 : V + 1], axis=1, keepdims=True)
    alike, home = unit @ unit.T, np.arange(V) // (V // 4)
    same = home[:, None] == home[None, :]
    assert alike[same].mean() > alike[~same].mean() + 0.5
    usual = np.linalg.norm(before[1 : V + 1], axis=1).mean()
    assert 1.0 < np.linalg.norm(rows[1 : V + 1], axis=1).mean() / usual < 2.0


def test_neighbours_need_a_family_with_a_table() -> None:
    graphs = sasrec.build(V, LENGTH, width=8, ffn_width=8)._replace(table="")
    with pytest.raises(ConfigError, match="is not of a family"):
        start.begin(graphs, _planted(), "neighbours")
