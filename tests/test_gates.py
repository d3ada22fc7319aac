"""Models that must not ship: each is refused, and by the limit that is there for it."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from edgepack.models import sasrec
from edgepack.models.graphs import transfer

from edgepack.budget import judge
from edgepack.config import load_config
from edgepack.convert import parity, tflite
from edgepack.data import public
from edgepack.data.clean import clean
from edgepack.data.shop import make_shop
from edgepack.data.split import SPLITS, load_split
from edgepack.data.types import Sequences, Split, padded
from edgepack.errors import DataError
from edgepack.evaluate import groups
from edgepack.evaluate.paired import drops
from edgepack.evaluate.ranking import Evaluation, evaluate, overlap
from edgepack.keras2 import deterministic, keras
from edgepack.profiles import load_profiles
from edgepack.results import Estimate, Measurement, Quality, Verdict
from edgepack.runtimes import host
from edgepack.stages import Place, logs
from edgepack.store import Store
from edgepack.train import fit
from edgepack.train.baselines import ease, markov_chain, popularity
from edgepack.train.settings import TrainingSettings

PROOFS = Path(__file__).parent / "proofs"
NOTHING = Measurement(target="t", artifact_sha256="0", numbers=())


@cache
def shop(split: str) -> Split:
    return SPLITS[split](clean(make_shop(500, 1_500, 7))[0])


@cache
def eased() -> np.ndarray:
    """Return EASE's scores, float32 [test users, V + 1]: the good model of the shop."""
    split = shop("leave-one-out")
    return ease(split.train, split.item_count)(split.test.history)


def judged(before: Evaluation, after: Evaluation, split: Split) -> dict[str, Verdict]:
    """Hold `after` against the ranking limits that every target has by default."""
    limits = load_profiles()["android-arm64-low"].budget
    counts = np.bincount(split.train.items, minlength=split.item_count + 1)
    grouped = [groups.by_activity(split.test.history), groups.by_popularity(split.test.targets, counts)]
    quality = Quality(
        metrics={name: Estimate(value=after.mean(name)) for name in after.metrics},
        drops=drops(before.metrics, after.metrics, 17),
        overlap_at_10=float(overlap(before.top10, after.top10).mean()),
        users=split.test.history.users,
        runtime="r",
        protocol="p",
        groups=groups.losses(before, after, grouped, 17),
    )
    found = judge(limits, model_bytes=0, download_bytes=0, measurement=NOTHING, quality=quality)
    return {verdict.limit: verdict for verdict in found if "@" in verdict.limit}


def over(verdicts: dict[str, Verdict]) -> set[str]:
    return {limit for limit, verdict in verdicts.items() if verdict.status != "within"}


DROP, GROUPS, OVERLAP = "drop of ndcg@10", "group drop of ndcg@10", "overlap@10"


def test_a_good_copy_passes_so_that_what_follows_says_something():
    split = shop("leave-one-out")
    table = eased()
    before, after = evaluate([table], split.test), evaluate([table + np.float32(1e-7)], split.test)
    verdicts = judged(before, after, split)
    assert set(verdicts) == {DROP, GROUPS, OVERLAP}
    assert over(verdicts) == set()


def test_a_model_that_returns_popularity_is_refused_by_every_limit():
    split = shop("leave-one-out")
    scored = [eased(), popularity(split.train, split.item_count)(split.test.history)]
    before, after = (evaluate([table], split.test) for table in scored)
    verdicts = judged(before, after, split)
    assert over(verdicts) == {DROP, GROUPS, OVERLAP}
    # It loses half of the ranking, and the tail, which it never recommends, all of it.
    assert verdicts[DROP].found > 0.5
    assert verdicts[GROUPS].found == 1.0
    assert "target's popularity tail" in verdicts[GROUPS].note
    sample = slice(0, 256)
    assert "overlap@10" in parity.check(scored[0][sample], scored[1][sample], "tflite-int8").reason


def test_equal_scores_are_refused_by_the_parity_gate_and_by_every_limit():
    split = shop("leave-one-out")
    table = eased()
    for equal, said in ((np.zeros_like(table), "all zero"), (np.full_like(table, 3), "constant")):
        for format in ("tflite-float32", "tflite-int8", "onnx-qdq"):
            assert said in parity.check(table[:64], equal[:64], format).reason
        verdicts = judged(evaluate([table], split.test), evaluate([equal], split.test), split)
        assert over(verdicts) == {DROP, GROUPS, OVERLAP}
        assert verdicts[DROP].found == 1.0


def pushed_to_popular(train: Sequences, item_count: int, history: Sequences) -> np.ndarray:
    """Score as a Markov chain that knows every item's followers no more, only how popular each is."""
    chain, prior = (make(train, item_count)(history) for make in (markov_chain, popularity))
    return np.asarray(np.where(chain >= np.quantile(chain, 0.99), chain, 0) + prior, np.float32)


def test_damage_that_raises_the_hit_rate_of_a_weak_model_is_refused_by_the_overlap_alone():
    split = shop("next-basket")
    whole = markov_chain(split.train, split.item_count)(split.test.history)
    damaged = pushed_to_popular(split.train, split.item_count, split.test.history)
    before, after = evaluate([whole], split.test), evaluate([damaged], split.test)
    verdicts = judged(before, after, split)
    assert after.mean("hr@10") > 1.1 * before.mean("hr@10")
    assert verdicts[DROP].status == verdicts[GROUPS].status == "within"
    assert over(verdicts) == {OVERLAP}


@pytest.fixture(scope="module")
def retail(tmp_path_factory) -> Split:
    try:
        public.taken("online-retail")
    except DataError as error:
        pytest.skip(f"Online Retail is not here: {error}")
    config = load_config(PROOFS / "online-retail.toml")
    place = Place(config, PROOFS, Store(tmp_path_factory.mktemp("store")), lambda *told: None)
    return load_split(logs.split_log(place).path)[0]


RETAIL_LENGTH = 50
# A quick training: 35 CPU seconds.
RETAIL_TRAINING = TrainingSettings(
    epochs=10, batch_size=32, learning_rate=6e-3, newest=0.2, negatives=300, same_basket=1.0
)


def prune_dense(serving: keras.Model, share: float) -> None:
    """Set that share of every Dense kernel to zero, the smallest weights first; the tied table stays."""
    for layer in serving.layers:
        if isinstance(layer, keras.layers.Dense) and layer.name != "scores":
            kernel, *bias = layer.get_weights()
            least = np.quantile(np.abs(kernel), share)
            layer.set_weights([np.where(np.abs(kernel) > least, kernel, 0), *bias])


def test_dense_pruning_without_retraining_on_real_invoices_is_refused(retail, tmp_path):
    deterministic(1)
    graphs = sasrec.build(retail.item_count, RETAIL_LENGTH, width=32, ffn_width=32)
    fit.fit(graphs, retail, RETAIL_TRAINING, work=tmp_path, tell=lambda *told: None)
    transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)
    histories = padded(retail.test.history, RETAIL_LENGTH)
    before = evaluate(fit.predict(graphs.serving, histories), retail.test)
    prune_dense(graphs.serving, 0.8)
    after = evaluate(fit.predict(graphs.serving, histories), retail.test)
    verdicts = judged(before, after, retail)
    # Whether damage lowers or raises the hit rate depends on how weak the model is: no gate rests on it.
    assert over(verdicts) == {DROP, GROUPS, OVERLAP}
    assert verdicts[OVERLAP].found < 0.75


ITEMS, LENGTH = 60, 8


def two_inputs() -> keras.Model:
    """Return a search model: what was taken and what is asked for, each pooled, together score the items."""
    deterministic(5)
    inputs = [keras.Input((LENGTH,), dtype="int32", name=name) for name in ("history", "query")]
    pooled = []
    for ids in inputs:
        start = keras.initializers.RandomUniform(0, 1, seed=len(pooled))
        rows = keras.layers.Embedding(ITEMS + 1, 16, embeddings_initializer=start, name=f"{ids.name}_rows")
        table = keras.layers.GlobalAveragePooling1D(name=f"{ids.name}_mean")(rows(ids))
        pooled.append(keras.layers.Dense(16, activation="relu", name=f"{ids.name}_hidden")(table))
        rows.set_weights([np.concatenate([np.zeros((1, 16)), rows.get_weights()[0][1:]])])
    both = keras.layers.Concatenate(name="both")(pooled)
    return keras.Model(inputs, keras.layers.Dense(ITEMS + 1, name="scores")(both), name="search")


def asked(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Return short histories and long queries: ids of one range, so that nothing but their places tells."""
    generator = np.random.default_rng(seed)
    ids = {
        name: generator.integers(1, ITEMS + 1, (rows, LENGTH)).astype(np.int32)
        for name in ("history", "query")
    }
    ids["history"][:, :-1] = 0
    return ids


def test_inputs_swapped_in_calibration_are_refused_by_the_parity_gate(tmp_path):
    model, calibration, rows = two_inputs(), asked(64, 1), asked(64, 2)
    swapped = {"history": calibration["query"], "query": calibration["history"]}
    reference = model([rows["history"], rows["query"]]).numpy()
    found = {}
    for name, ranges in (("right", calibration), ("swapped", swapped)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(tflite.convert(model, "tflite-int8", length=LENGTH, calibration=ranges))
        found[name] = parity.check(reference, host.run("litert", path, rows, deadline_s=60), "tflite-int8")
    assert found["right"].reason == ""
    assert "overlap@10" in found["swapped"].reason
