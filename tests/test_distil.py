"""Distillation: losses equal their formulas, students come closer to their teacher, a kill changes no bit."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from edgepack.models import mf, neumf, sasrec
from edgepack.models.graphs import Graphs
from numpy.typing import NDArray

from edgepack import build, planning
from edgepack.compress.recipes import RECIPES
from edgepack.config import Config, DataConfig, ModelConfig, load_config
from edgepack.data.types import EvaluationSet, Split, padded
from edgepack.errors import ConfigError
from edgepack.evaluate.ranking import evaluate, overlap
from edgepack.keras2 import deterministic, keras, tf
from edgepack.stages import Place, compression, configured, figures, logs, models
from edgepack.store import Store
from edgepack.train import distil, losses
from edgepack.train.distil import Guide, Teacher, teacher_of
from edgepack.train.fit import fit, fit_scores, predict
from edgepack.train.settings import Distillation, TrainingSettings
from tests.test_fit import Killed, KillInSecondEpoch, _sequences, silent

RNG = np.random.default_rng(3)
STUDENT = RNG.normal(size=(6, 40)).astype(np.float32)
TEACHER = (2 * RNG.normal(size=(6, 40))).astype(np.float32)
V, LENGTH, STEPS = 60, 8, 20
SETTINGS = TrainingSettings(
    epochs=10, batch_size=16, negatives=20, learning_rate=0.01, warmup_steps=5, validation_users=30
)


def softmax(scores: NDArray[Any]) -> NDArray[np.float64]:
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def divergence(student: NDArray[Any], teacher: NDArray[Any], temperature: float = 1.0) -> float:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return float(temperature**2 * (p * np.log(p / q)).sum(axis=1).mean())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_labels_are_the_divergence_times_temperature_squared(temperature: float) -> None:
    found = float(losses.soft_labels(STUDENT, TEACHER, temperature))
    assert found == pytest.approx(divergence(STUDENT, TEACHER, temperature), rel=1e-5)
    assert float(losses.soft_labels(TEACHER, TEACHER, temperature)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_of_soft_labels_is_what_the_student_gives_too_much(temperature: float) -> None:
    student = tf.Variable(STUDENT)
    with tf.GradientTape() as tape:
        loss = losses.soft_labels(student, TEACHER, temperature)
    too_much = softmax(STUDENT / temperature) - softmax(TEACHER / temperature)
    np.testing.assert_allclose(tape.gradient(loss, student), temperature * too_much / 6, atol=1e-6)


def test_ranking_compares_what_either_of_the_two_ranks_high() -> None:
    columns, counted = (np.array(x) for x in losses.top_of_both(STUDENT, TEACHER, 5))
    expected = 0.0
    for row in range(6):
        best = [set(np.argsort(-scores[row])[:5]) for scores in (STUDENT, TEACHER)]
        kept = columns[row][counted[row]]
        assert set(kept) == best[0] | best[1]
        assert len(kept) == len(best[0] | best[1]), "an item of both counts once"
        expected += divergence(STUDENT[row : row + 1, kept], TEACHER[row : row + 1, kept]) / 6
    assert float(losses.ranked_together(STUDENT, TEACHER, 5)) == pytest.approx(expected, rel=1e-5)


def test_ranking_sees_an_item_that_the_student_alone_puts_first() -> None:
    """The teacher's best alone would not: all their scores are equal before and after."""
    wrong = TEACHER.copy()
    wrong[:, TEACHER.argmin(axis=1)] += 20
    assert float(losses.ranked_together(wrong, TEACHER, 5)) > 1
    assert float(losses.ranked_together(TEACHER, TEACHER, 5)) == pytest.approx(0, abs=1e-6)


def test_a_hint_is_a_squared_distance_in_variances_of_the_teacher() -> None:
    expected = np.mean((STUDENT - TEACHER) ** 2) / TEACHER.var(axis=0).mean()
    assert float(losses.hint(STUDENT, TEACHER)) == pytest.approx(float(expected), rel=1e-5)


def test_the_parts_of_the_loss_weigh_what_they_are_told_to() -> None:
    how = Distillation(soft=0.25, temperature=2.0, ranking=3.0, top=4)
    parts = losses.soft_labels(STUDENT, TEACHER, 2.0), losses.ranked_together(STUDENT, TEACHER, 4)
    expected = 0.25 * float(parts[0]) + 3 * float(parts[1])
    assert float(distil.compared(how, STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-6)
    assert float(distil.compared(Distillation(soft=0), STUDENT, TEACHER)) == 0


@pytest.mark.parametrize(("teachers", "students"), [(3, 5), (5, 3), (4, 4)])
def test_a_teacher_of_another_length_is_asked_about_the_same_moment(teachers: int, students: int) -> None:
    history = np.array([[0, 0, 11, 12, 13], [21, 22, 23, 24, 25]], np.int32)
    history = history[:, -max(teachers, students) :]
    seen: list[NDArray[np.int32]] = []

    def scores(cut: Any) -> Any:
        seen.append(cut.numpy())
        return tf.zeros((len(cut), 4))

    places = tf.constant([[0, students - 2], [1, students - 1]], tf.int64)
    distil._asked(Teacher("t", teachers, scores), tf.constant(history), students, places)
    before_13, before_26 = [0, 0, 0, 11, 12], [21, 22, 23, 24, 25]
    assert seen[0].tolist() == [before_13[-teachers:], before_26[-teachers:]]


def test_a_teacher_that_encodes_gives_the_scores_of_its_own_state_at_that_moment() -> None:
    states = RNG.normal(size=(2, 5, 3)).astype(np.float32)
    table = RNG.normal(size=(8, 3)).astype(np.float32)
    encoder = Teacher("t", 5, lambda rows: rows, lambda rows: tf.constant(states), tf.constant(table))
    hidden, scores = distil._asked(encoder, tf.zeros((2, 5), tf.int32), 3, tf.constant([[1, 0], [0, 2]]))
    wanted = np.stack([states[1, 2], states[0, 4]])
    np.testing.assert_array_equal(hidden, wanted)
    np.testing.assert_allclose(scores, wanted @ table[1:].T, rtol=1e-5)


@pytest.fixture(scope="module")
def log() -> Split:
    return split_of(walked(8))


def split_of(walks: list[list[int]]) -> Split:
    train = _sequences([walk[:-2] for walk in walks])
    users = [
        EvaluationSet(_sequences([w[:n] for w in walks]), _sequences([w[n : n + 1] for w in walks]))
        for n in (STEPS - 2, STEPS - 1)
    ]
    return Split(train, *users, V)


def walked(seed: int, users: int = 150) -> list[list[int]]:
    """Everybody wanders: after an item comes one of its five followers, which differ from seed to seed."""
    generator = np.random.default_rng(seed)
    followers = generator.integers(1, V + 1, (V + 1, 5))
    walks = [[int(generator.integers(1, V + 1))] for _ in range(users)]
    for walk in walks:
        for _ in range(STEPS - 1):
            walk.append(int(followers[walk[-1], generator.choice(5, p=[0.4, 0.3, 0.15, 0.1, 0.05])]))
    return walks


def sasrec_of(width: int, length: int = LENGTH) -> Graphs:
    deterministic(1)
    return sasrec.build(V, length, width=width, ffn_width=width, blocks=1, dropout=0.1)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """One from where other items follow: nothing but its lessons makes lists like its own."""
    log = split_of(walked(9))
    graphs = sasrec_of(24, length=12)
    settings = msgspec.structs.replace(SETTINGS, epochs=14)
    fit(graphs, log, settings, work=tmp_path_factory.mktemp("teacher"), tell=silent)
    return teacher_of(graphs, 12, "teacher")


def top10(log: Split, score: Callable[[Any], Any], length: int) -> NDArray[Any]:
    histories = padded(log.test.history, length)
    return evaluate(iter([np.asarray(score(histories))]), log.test, (10,), True).top10


def agreement(log: Split, serving: Any, teacher: Teacher) -> float:
    own = top10(log, lambda rows: np.concatenate(list(predict(serving, rows))), LENGTH)
    return float(overlap(own, top10(log, teacher.scores, teacher.length)).mean())


def scoring_model() -> Graphs:
    deterministic(1)
    history = keras.Input((LENGTH,), dtype="int32")
    rows = keras.layers.Flatten()(keras.layers.Embedding(V + 1, 4)(history))
    model = keras.Model(history, keras.layers.Dense(V + 1)(rows))
    return Graphs(model, model, "", None)


def mf_of() -> Graphs:
    deterministic(1)
    return mf.build(V, LENGTH, width=8)


def neumf_of() -> Graphs:
    deterministic(1)
    return neumf.build(V, LENGTH, width=8, mlp_in=8, mlp_out=4)


def trained(graphs: Graphs, log: Split, work: Path, guide: Guide | None, epochs: int = 10, **own: Any) -> Any:
    loss = {"loss": "bce"} if graphs.pairwise else {}
    settings = msgspec.structs.replace(SETTINGS, epochs=epochs, **loss)
    work.mkdir(exist_ok=True)
    if graphs.training is graphs.serving:
        fit_scores(graphs.training, log, settings, work=work, tell=silent, guide=guide, **own)
    else:
        fit(graphs, log, settings, work=work, tell=silent, guide=guide, **own)
    return graphs.serving


LISTENING = Distillation(hard=0.1, ranking=1.0, top=15)


def test_a_distilled_student_ranks_more_as_its_longer_sighted_teacher_does(
    log: Split, teacher: Teacher, tmp_path: Path
) -> None:
    alone = agreement(log, trained(sasrec_of(8), log, tmp_path / "alone", None), teacher)
    # As a model of one's own teaches, which came trained and gives scores alone.
    by_scores = teacher._replace(hidden=None, table=None)
    for index, one in enumerate((teacher, by_scores)):
        taught = trained(sasrec_of(8), log, tmp_path / str(index), Guide(one, LISTENING))
        assert agreement(log, taught, teacher) > alone + 0.15


@pytest.mark.parametrize("family", [neumf_of, scoring_model])
def test_a_student_of_another_family_learns_its_teachers_lists(
    family: Callable[[], Graphs], log: Split, teacher: Teacher, tmp_path: Path
) -> None:
    untaught = agreement(log, family().serving, teacher)
    assert untaught < 0.25, "what chance gives: 10 of 60"
    assert agreement(log, trained(family(), log, tmp_path, Guide(teacher, LISTENING)), teacher) > 0.32


def test_a_killed_distillation_ends_with_the_bits_of_an_unbroken_one(
    log: Split, teacher: Teacher, tmp_path: Path
) -> None:
    guide = Guide(teacher, Distillation(ranking=1.0, top=5, hints=0.5, positions=64))
    runs = [tmp_path / "whole", tmp_path / "broken"]
    whole = trained(mf_of(), log, runs[0], guide, 2)
    with pytest.raises(Killed):
        trained(mf_of(), log, runs[1], guide, 2, callbacks=[KillInSecondEpoch()])
    resumed = trained(mf_of(), log, runs[1], guide, 2)
    hashes = [
        hashlib.sha256(b"".join(w.tobytes() for w in m.get_weights())).hexdigest() for m in (whole, resumed)
    ]
    assert hashes[0] == hashes[1]


def test_a_model_that_came_trained_teaches_by_its_scores_alone() -> None:
    own = teacher_of(scoring_model(), LENGTH, "own")
    assert (own.length, own.hidden, own.table) == (LENGTH, None, None)
    assert own.scores(tf.zeros((3, LENGTH), tf.int32)).shape == (3, V + 1)


@pytest.mark.parametrize("family", [neumf_of, scoring_model])
def test_hints_are_refused_where_there_is_no_hidden_state(
    family: Callable[[], Graphs], log: Split, teacher: Teacher, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="hints need a teacher and a student that encode"):
        trained(family(), log, tmp_path, Guide(teacher, Distillation(hints=1.0)))


def test_a_student_starts_from_the_best_approximation_of_its_teachers_table(teacher: Teacher) -> None:
    student = sasrec_of(8)
    distil.start(student, Guide(teacher, Distillation()))
    table = student.training.get_layer("item_embedding").embeddings.numpy()[1:].astype(np.float64)
    full = teacher.table.numpy()[1:].astype(np.float64)
    spectrum = np.linalg.svd(full, compute_uv=False)
    # The part of the teacher's inner products between items that is lost: the spectrum's tail.
    lost = np.linalg.norm(full @ full.T - table @ table.T)
    assert lost == pytest.approx(np.sqrt((spectrum[8:] ** 4).sum()), rel=1e-3)


CONFIG = """
name = "small"
[data]
path = "log.csv"
[model]
family = "sasrec"
history_length = 8
[model.hyper]
width = {width}
ffn_width = 8
blocks = 1
[training]
epochs = 2
[teacher]
family = "sasrec"
history_length = 12
[teacher.hyper]
width = 24
blocks = 1
[teacher.training]
epochs = 3
[compress]
recipes = ["distil-qat"]
[quality]
noise_floor = false
"""


def write_log(folder: Path) -> None:
    lines = (f"u{u},i{item},{n}" for u, walk in enumerate(walked(8, 60)) for n, item in enumerate(walk))
    (folder / "log.csv").write_text("\n".join(["user,item,time", *lines]) + "\n")


def test_the_teacher_is_the_reference_and_serves_a_second_student_untrained(tmp_path: Path) -> None:
    path, store = tmp_path / "edgepack.toml", tmp_path / "store"
    write_log(tmp_path)
    path.write_text(CONFIG.format(width=8))
    rows = build.float_rows(path, load_config(path), store, silent)
    named = {row.name: row for row in rows if row.kind != "baseline"}
    assert list(named) == ["sasrec (teacher, float)", "sasrec (student, float)"]
    overlap = named["sasrec (student, float)"].overlap_at_10
    assert overlap is not None
    assert 0 < overlap < 1

    place = Place(load_config(path), tmp_path, Store(store), silent)
    kept = logs.split_log(place)
    items = logs.facts(kept).items
    reference, _ = build._reference(place, kept, items)
    student = configured.model(place, items)
    weights = models.distil(place, kept, student, reference, 1)
    compression.compress(place, kept, models.Trained(student, weights), "distil-qat", reference)
    assert [stage.split("/")[0] for stage in place.store.made] == ["compress"]

    path.write_text(CONFIG.format(width=4))
    place = Place(load_config(path), tmp_path, Store(store), silent)
    kept = logs.split_log(place)
    reference, ranked = build._reference(place, kept, logs.facts(kept).items)
    assert reference.model.length == 12
    assert {stage.split("/")[0] for stage in place.store.kept} == {"data", "train", "float-quality"}
    assert place.store.made == []
    assert figures.metrics_of(ranked) == named["sasrec (teacher, float)"].metrics


def test_a_teacher_of_two_seeds_is_their_mean_and_reuses_the_training_of_a_single_one(tmp_path: Path) -> None:
    path = tmp_path / "edgepack.toml"
    write_log(tmp_path)
    path.write_text(CONFIG.format(width=8))
    place = Place(load_config(path), tmp_path, Store(tmp_path / "store"), silent)
    split = logs.split_log(place)
    items = logs.facts(split).items
    alone, _ = build._reference(place, split, items)

    path.write_text(CONFIG.format(width=8).replace("[teacher]", "[teacher]\nseeds = 2"))
    told = planning.render_plan(planning.plan(path, load_config(path)), as_json=False)
    assert "taught by sasrec (the mean of 2 trainings)" in told
    place = Place(load_config(path), tmp_path, place.store, silent)
    pair, ranked = build._reference(place, split, items)
    assert pair.weights.digest == alone.weights.digest
    assert len(pair.others) == 1

    histories = np.asarray(walked(8, 20), np.int32)[:, :12]
    one, two = (models.trained_graphs(member).serving(histories).numpy() for member in pair.members)
    assert np.abs(one - two).max() > 0.01
    taught_by = models.guide_of(pair, Distillation()).teacher
    np.testing.assert_allclose(taught_by.scores(histories), (one + two) / 2, atol=1e-6)
    states = taught_by.hidden(tf.constant(histories))[:, -1]
    np.testing.assert_allclose(
        tf.matmul(states, taught_by.table, transpose_b=True), (one + two) / 2, atol=1e-5
    )
    assert taught_by.identity != models.guide_of(alone, Distillation()).teacher.identity

    users, fed = logs.tested(place, split, 12)
    whole = [np.concatenate(list(figures._float_scores(member, fed))) for member in pair.members]
    expected = evaluate([(whole[0] + whole[1]) / 2], users).mean("ndcg@10")
    assert figures.metrics_of(ranked)["ndcg@10"].value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["distil-qat"]', '["qat"]', "none of qat learns from the [teacher]"),
        ("[teacher]", "[teacher]\nfile = 'big.keras'", "sets family and file"),
        ("history_length = 12", "history_length = 0", "teacher.history_length"),
        ("history_length = 12", "history_length = 12\nseeds = 0", "teacher.seeds: is 0"),
        (
            '[teacher]\nfamily = "sasrec"',
            "[teacher]\nfile = 'big.keras'\nseeds = 2",
            "teacher.seeds: is 2 beside",
        ),
        ("epochs = 3", "epocs = 3", "Did you mean 'epochs'?"),
        ('[teacher]\nfamily = "sasrec"', '[teacher]\nfamily = "sasrek"', "teacher.family 'sasrek'"),
        ('[model]\nfamily = "sasrec"', '[model]\nfamily = "bert4rec"', "cannot be a student: it fills gaps"),
        ("[compress]", "[distillation]\ntemprature = 2\n[compress]", "Did you mean 'temperature'?"),
        ("[compress]", "[distillation]\nsoft = -1.0\n[compress]", "soft"),
        ("[compress]", "[distillation]\nhard = 0\nsoft = 0\n[compress]", "which teaches nothing"),
        ("[compress]", "[distillation]\nhard = 0\nsoft = 0\nhints = 1\n[compress]", "without them"),
    ],
)
def test_a_wrong_teacher_is_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "edgepack.toml"
    write_log(tmp_path)
    path.write_text(CONFIG.format(width=8).replace(old, new))
    with pytest.raises(ConfigError) as caught:
        config = load_config(path)
        planning.plan(path, config, ("android-arm64-low",))
        build.float_rows(path, config, tmp_path / "store", silent)
    assert said in str(caught.value)


def test_a_recipe_that_distils_wants_a_teacher(tmp_path: Path) -> None:
    path = tmp_path / "edgepack.toml"
    table, after = CONFIG.index("[teacher]"), CONFIG.index("[compress]")
    path.write_text((CONFIG[:table] + CONFIG[after:]).format(width=8))
    with pytest.raises(ConfigError, match=r"wants a teacher and there is none. Add a table \[teacher\]"):
        planning.plan(path, load_config(path))


def test_a_recipes_name_says_which_of_its_trainings_listen_to_a_teacher() -> None:
    for name, recipe in RECIPES.items():
        settings = [step for step in (recipe.pruning, recipe.quantization) if step is not None]
        assert recipe.distil == name.startswith("distil")
        assert all(step.distil == name.startswith(("distil", "guided")) for step in settings)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (ModelConfig(family="bert4rec"), "it fills gaps"),
        (ModelConfig(family="twotower", query_length=4, query_buckets=16), "it reads a search"),
    ],
    ids=["bert4rec", "twotower"],
)
def test_a_model_that_no_teacher_can_be_asked_for_is_told_before_it_is_trained(
    tmp_path: Path, settings: ModelConfig, why: str
) -> None:
    config = Config(data=DataConfig(path="log.csv"), model=settings)
    model = configured.model(Place(config, tmp_path, Store(tmp_path), silent), 20)
    for name in ("guided-qat", "guided-table-4bit-qat", "guided-cluster16-ptq"):
        assert f"can listen to no teacher: {why}" in compression.why_not(model, RECIPES[name])
    assert not any(compression.why_not(model, RECIPES[name]) for name in ("float", "ptq-mse", "qat"))
