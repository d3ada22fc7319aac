"""Training: what it learns from, that it learns, and that a kill changes no bit of what it ends with."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from edgepack.models import bert4rec, gru4rec, mf, neumf, sasrec

from edgepack.data.types import EvaluationSet, Sequences, Split, padded
from edgepack.errors import ConfigError, DataError
from edgepack.keras2 import deterministic, keras
from edgepack.train import batches, checkpoint, draw
from edgepack.train.fit import fit, fit_scores, predict
from edgepack.train.settings import TrainingSettings

V, LENGTH = 30, 6
FAMILIES = {"sasrec": sasrec, "mf": mf, "neumf": neumf, "gru4rec": gru4rec, "bert4rec": bert4rec}


def silent(what: str, done: int, total: int) -> None:
    """Take progress and show nothing."""


QUICK = {"batch_size": 32, "negatives": 12, "warmup_steps": 5, "learning_rate": 0.01, "validation_users": 40}


def _sequences(rows: list[list[int]], baskets: list[list[int]] | None = None) -> Sequences:
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    items = np.array([item for row in rows for item in row], np.int32)
    marks = [mark for row in baskets or [list(range(len(row))) for row in rows] for mark in row]
    return Sequences(items, offsets, np.array(marks, np.int32))


def _rings(users: int = 120, steps: int = 9) -> Split:
    """Everybody walks a ring of V items: what follows item i is item i + 1, so 1 of V guesses is right."""
    starts = np.random.default_rng(5).integers(0, V, users)
    walks = [[int((start + step) % V + 1) for step in range(steps)] for start in starts]
    valid = EvaluationSet(_sequences([w[:-2] for w in walks]), _sequences([w[-2:-1] for w in walks]))
    test = EvaluationSet(_sequences([w[:-1] for w in walks]), _sequences([w[-1:] for w in walks]))
    return Split(_sequences([w[:-2] for w in walks]), valid, test, V)


def _hash(model: object) -> str:
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()


def _built(family: str) -> object:
    deterministic(1)
    small = {"mlp_in": 8, "mlp_out": 4} if family == "neumf" else {"dropout": 0.1}
    return FAMILIES[family].build(V, LENGTH, width=16, **small)


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop catches it."""


class KillInSecondEpoch:
    epochs = 0

    def set_model(self, model: object) -> None: ...
    def on_train_begin(self) -> None: ...

    def on_epoch_end(self, epoch: int) -> None:
        self.epochs += 1

    def on_train_batch_begin(self, step: int) -> None:
        if self.epochs:
            raise Killed


@pytest.mark.parametrize(("family", "average"), [*((family, 0.0) for family in FAMILIES), ("mf", 0.9)])
def test_a_killed_training_ends_with_the_bits_of_an_unbroken_one(
    family: str, average: float, tmp_path: Path
) -> None:
    split, settings = _rings(), TrainingSettings(epochs=3, average=average, **QUICK, **_loss(family))
    whole, broken, resumed = _built(family), _built(family), _built(family)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    told: list[tuple[str, int, int]] = []
    through = fit(whole, split, settings, work=tmp_path / "a", tell=lambda *line: told.append(line))
    with pytest.raises(Killed):
        fit(
            broken,
            split,
            settings,
            work=tmp_path / "b",
            tell=lambda *line: told.append(line),
            callbacks=[KillInSecondEpoch()],
        )
    again = fit(resumed, split, settings, work=tmp_path / "b", tell=lambda *line: told.append(line))
    assert ("going on after a finished epoch", 1, 3) in told
    assert _hash(whole.training) == _hash(resumed.training)
    assert _hash(whole.serving) == _hash(resumed.serving)
    assert [r["loss"] for r in through.records] == [r["loss"] for r in again.records]


def _loss(family: str) -> dict[str, str]:
    return {"loss": "bce"} if family == "neumf" else {}


@pytest.mark.parametrize(
    ("family", "loss"),
    [
        ("sasrec", "sampled-softmax"),
        ("sasrec", "full-softmax"),
        ("sasrec", "bce"),
        ("gru4rec", "sampled-softmax"),
        ("bert4rec", "sampled-softmax"),
    ],
)
def test_an_encoder_learns_what_follows_what(family: str, loss: str, tmp_path: Path) -> None:
    split, graphs = _rings(), _built(family)
    settings = TrainingSettings(epochs=20, loss=loss, **QUICK)
    history = fit(graphs, split, settings, work=tmp_path, tell=silent)
    assert history.records[-1]["loss"] < history.records[0]["loss"]
    scores = np.concatenate(list(predict(graphs.serving, padded(split.test.history, LENGTH))))
    hits = scores[:, 1:].argmax(axis=1) + 1 == split.test.targets.items
    assert hits.mean() > 0.6


def test_any_keras_model_from_history_to_scores_can_be_trained(tmp_path: Path) -> None:
    split = _rings()
    deterministic(1)
    history = keras.Input((LENGTH,), dtype="int32")
    last = keras.layers.Embedding(V + 1, 8)(history)
    model = keras.Model(history, keras.layers.Dense(V + 1)(keras.layers.Flatten()(last)))
    settings = TrainingSettings(epochs=12, **QUICK)
    records = fit_scores(model, split, settings, work=tmp_path, tell=silent).records
    assert records[-1]["valid_hr@10"] > 0.9
    assert records[-1]["cpu_s"] > records[0]["cpu_s"]


def test_the_best_epoch_or_the_last_remains_as_asked(tmp_path: Path) -> None:
    split = _rings()
    for keep in ("best", "last"):
        (tmp_path / keep).mkdir()
        settings = TrainingSettings(epochs=3, keep=keep, **QUICK)
        history = fit(_built("mf"), split, settings, work=tmp_path / keep, tell=silent)
        ndcg = [record["valid_ndcg@10"] for record in history.records]
        assert history.kept_epoch == (int(np.argmax(ndcg)) + 1 if keep == "best" else 3)


def test_an_average_of_the_weights_is_ranked_and_kept_and_training_goes_its_own_way(tmp_path: Path) -> None:
    split, losses, weights = _rings(), [], []
    for average in (0.0, 0.95):
        (tmp_path / str(average)).mkdir()
        graphs, settings = _built("mf"), TrainingSettings(epochs=6, keep="last", average=average, **QUICK)
        history = fit(graphs, split, settings, work=tmp_path / str(average), tell=silent)
        losses.append([record["loss"] for record in history.records])
        weights.append(graphs.training.get_layer("item_embedding").get_weights()[0])
    begun = _built("mf").training.get_layer("item_embedding").get_weights()[0]
    assert losses[0] == losses[1]
    # Weights that grow steadily have an average between where they began and where they are.
    grown, averaged = (np.abs(found - begun).mean() for found in weights)
    assert 0.3 * grown < averaged < 0.98 * grown


def test_a_table_of_the_callers_own_is_what_the_loss_reads(tmp_path: Path) -> None:
    split, graphs = _rings(), _built("sasrec")
    reads: list[int] = []

    def table() -> object:
        reads.append(1)
        return graphs.training.get_layer("item_embedding").embeddings * 1.0

    fit(graphs, split, TrainingSettings(epochs=1, **QUICK), work=tmp_path, tell=silent, table=table)
    assert reads


def test_other_settings_do_not_go_on_from_an_old_checkpoint(tmp_path: Path) -> None:
    split, told = _rings(), []
    fit(_built("mf"), split, TrainingSettings(epochs=1, **QUICK), work=tmp_path, tell=silent)
    other = TrainingSettings(epochs=1, seed=2, **QUICK)
    history = fit(_built("mf"), split, other, work=tmp_path, tell=lambda *line: told.append(line))
    assert not any("going on" in line[0] for line in told)
    assert len(history.records) == 1
    checkpoint.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_pair_model_refuses_a_loss_over_the_whole_catalogue(tmp_path: Path) -> None:
    settings = TrainingSettings(loss="full-softmax")
    with pytest.raises(ConfigError, match="full-softmax does not fit"):
        fit(_built("neumf"), _rings(), settings, work=tmp_path, tell=silent)


def test_a_split_without_events_is_refused(tmp_path: Path) -> None:
    nobody = _sequences([[], []])
    empty = Split(nobody, EvaluationSet(nobody, nobody), EvaluationSet(nobody, nobody), V)
    with pytest.raises(DataError, match="no user has any events"):
        fit(_built("mf"), empty, TrainingSettings(), work=tmp_path, tell=silent)


def test_a_window_teaches_the_next_item_and_starts_from_nothing() -> None:
    found = batches.windows(_sequences([[7, 8, 9]]), 5, np.random.default_rng(0))
    row = int(np.flatnonzero(found.history.any(axis=1))[0])
    assert found.history[row].tolist() == [0, 0, 0, 7, 8]
    assert found.targets[row].tolist() == [0, 0, 7, 8, 9]
    prior = found.targets[1 - row]
    assert not found.history[1 - row].any()
    assert prior[:-1].tolist() == [0] * 4
    assert prior[-1] in (7, 8, 9)


def test_a_long_history_shows_its_newest_window_or_another_whole_one() -> None:
    train = _sequences([list(range(1, 21))])
    seen = {
        tuple(row)
        for seed in range(60)
        for row in batches.windows(train, 4, np.random.default_rng(seed)).targets
        if row[0]
    }
    assert (17, 18, 19, 20) in seen
    assert len(seen) > 5
    assert all(row == tuple(range(row[0], row[0] + 4)) for row in seen)


def test_baskets_teach_new_items_of_the_next_one_in_any_order_of_lines() -> None:
    train = _sequences([[1, 2, 3, 1, 4, 5]], [[0, 0, 0, 1, 1, 1]])
    orders, after_first, after_second = set(), set(), set()
    for seed in range(80):
        found = batches.basket_windows(train, 6, np.random.default_rng(seed), same_basket=0.0)
        row = int(np.flatnonzero(found.history.any(axis=1))[0])
        history, targets = found.history[row], found.targets[row]
        assert set(history[:3]) == {1, 2, 3}
        orders.add(tuple(history[:3]))
        after_first |= set(targets[:3])
        after_second |= set(targets[3:])
    assert len(orders) == 6
    assert after_first == {4, 5}, "item 1 is not new"
    assert after_second == {0, 1, 4, 5}, "the last basket teaches its own lines"


def _asked(train: Sequences, target_basket: int) -> Split:
    users = EvaluationSet(train, _sequences([[9]], [[target_basket]]))
    return Split(train, users, users, V)


def test_the_split_tells_whether_to_learn_the_next_basket_or_the_next_line() -> None:
    baskets, lines = _sequences([[1, 2, 3]], [[0, 1, 1]]), _sequences([[1, 2, 3]])
    assert batches.learns_baskets(_asked(baskets, 2))
    assert not batches.learns_baskets(_asked(baskets, 1)), "the target continues the last basket"
    assert not batches.learns_baskets(_asked(lines, 3)), "no basket holds two items"


def test_a_cut_takes_away_what_follows() -> None:
    examples = batches.Examples(np.array([[0, 7, 8, 9]], np.int32), np.array([[7, 8, 9, 5]], np.int32))
    history, target = batches.cut(examples, np.random.default_rng(1), per_row=40)
    known = {7: [0, 0, 0, 0], 8: [0, 0, 0, 7], 9: [0, 0, 7, 8], 5: [0, 7, 8, 9]}
    assert set(target.tolist()) == set(known)
    assert all(row.tolist() == known[int(item)] for row, item in zip(history, target, strict=True))


def test_epochs_differ_and_repeat() -> None:
    draws = [batches.epoch_generator(1, epoch).integers(0, 1 << 30) for epoch in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]


def test_a_gap_hides_its_item_and_the_newest_place_is_asked_as_in_serving() -> None:
    split = _rings()
    settings = TrainingSettings(**QUICK, mask_share=0.5, mask_newest=0.4)
    masked, targets, _ = (np.concatenate(part) for part in zip(*_cloze(split, settings, 0), strict=True))
    gaps = masked == V + 1
    np.testing.assert_array_equal(gaps, targets > 0)
    assert gaps.any(axis=1).all()
    newest_alone = gaps[:, -1] & (gaps.sum(axis=1) == 1)
    assert 0.4 < newest_alone.mean() < 0.65
    full = (np.where(gaps, targets, masked) > 0).all(axis=1) & ~newest_alone
    assert 0.4 < gaps[full].mean() < 0.6
    # Everybody walks the ring: with its gaps filled a row is a stretch of it.
    filled = np.where(gaps, targets, masked)
    both = (filled[:, 1:] > 0) & (filled[:, :-1] > 0)
    np.testing.assert_array_equal((filled[:, :-1] % V + 1)[both], filled[:, 1:][both])
    again = np.concatenate([batch[0] for batch in _cloze(split, settings, 0)])
    np.testing.assert_array_equal(masked, again)
    assert not np.array_equal(masked, np.concatenate([batch[0] for batch in _cloze(split, settings, 1)]))


def _cloze(split: Split, settings: TrainingSettings, epoch: int) -> list[tuple[np.ndarray, ...]]:
    return list(draw.cloze_batches(split, LENGTH, settings)(epoch))
