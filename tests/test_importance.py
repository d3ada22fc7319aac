"""First-order pruning: a weight's worth is its share in the loss; layers give up what they can spare."""

import numpy as np
import pytest
from edgepack.models.graphs import Graphs

from edgepack.compress import importance, prune, steps
from edgepack.compress.recipes import RECIPES, Pruning, known
from edgepack.errors import ConfigError
from edgepack.keras2 import keras, tf
from tests.test_compress import HISTORIES, ITEMS, LENGTH, build_neumf, build_sasrec, compress

RNG = np.random.default_rng(2)


def linear(width=6):
    """Return a model whose scores are a product with the sum of a history's rows, and its two matrices."""
    history = keras.Input((LENGTH,), dtype="int32", name="history")
    rows = keras.layers.Embedding(ITEMS + 1, width, name="item_embedding")(history)
    hidden = keras.layers.Lambda(lambda x: tf.reduce_sum(x, axis=1), name="sum")(rows)
    model = keras.Model(history, keras.layers.Dense(ITEMS + 1, use_bias=False, name="off")(hidden))
    model.get_layer("item_embedding").set_weights([RNG.normal(0, 0.3, (ITEMS + 1, width))])
    model.get_layer("off").set_weights([RNG.normal(0, 0.3, (width, ITEMS + 1))])
    return model


def test_the_worth_of_a_weight_is_its_square_times_the_fisher_information():
    model = linear()
    found = importance.importance(Graphs(model, model, "", None), np.tile(HISTORIES, (8, 1)))["off/kernel"]
    table, kernel = (model.get_layer(name).get_weights()[0] for name in ("item_embedding", "off"))
    hidden = table[HISTORIES].sum(axis=1)
    powers = np.exp(hidden @ kernel)
    chances = powers / powers.sum(axis=1, keepdims=True)
    # The gradient is hidden x (chance - drawn), whose mean square over draws is hidden^2 chance (1 - chance).
    fisher = (hidden**2).T @ (chances * (1 - chances)) / len(HISTORIES)
    expected = kernel**2 * fisher
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95
    assert found.sum() == pytest.approx(expected.sum(), rel=0.15)


def test_a_tied_table_is_worth_what_it_does_on_both_sides():
    graphs = build_sasrec()
    steps._to_serving(graphs)
    found = importance.importance(graphs, HISTORIES)
    assert "scores/kernel" not in found
    table = found["item_embedding/embeddings"]
    unseen = np.setdiff1d(np.arange(1, ITEMS + 1), HISTORIES)
    assert (table[unseen].sum(axis=1) > 0).mean() > 0.8 if len(unseen) else (table[1:] > 0).any(axis=1).all()


def test_a_tables_metric_and_rows_are_the_fisher_information_of_its_weights():
    graphs = build_sasrec()
    steps._to_serving(graphs)
    found = importance.table_worth(graphs, HISTORIES)
    table = graphs.training.get_layer("item_embedding").get_weights()[0].astype(np.float64)
    weights = importance.importance(graphs, HISTORIES)["item_embedding/embeddings"]
    apart = np.where(table == 0, 0, weights / np.where(table == 0, 1, table) ** 2)
    np.testing.assert_allclose(np.diag(found.metric), apart.sum(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.rows, apart.sum(axis=1), rtol=1e-3, atol=1e-9)
    assert np.linalg.eigvalsh(found.metric).min() > -1e-6


def test_the_least_go_and_no_layer_goes_whole():
    worth = {"a": np.arange(1.0, 101.0).reshape(10, 10), "b": np.full((4, 5), 0.5)}
    shares = importance.zero_shares(worth, 0.5)
    assert shares["b"] == 0.95
    assert shares["a"] == pytest.approx(0.40, abs=0.02)
    kept = importance.without_least(np.full((10, 10), 7.0), worth["a"], 0.4)
    assert (kept.ravel()[:40] == 0).all() and (kept.ravel()[40:] == 7.0).all()


@pytest.mark.parametrize("build", [build_sasrec, build_neumf])
def test_the_zeros_that_were_chosen_stay_through_training_and_quantization(build, tmp_path):
    own = {"from": "prune50-fisher-qat", "pruning": {"epochs": 1}, "quantization": {"epochs": 1}}
    folder = compress(build, known({"mine": own})["mine"], tmp_path)
    shares = prune.zero_share(steps.restore(build, folder, quantized=False))
    shares.pop("scores/kernel", None)
    assert max(shares.values()) <= 0.96
    assert max(shares.values()) - min(shares.values()) > 0.1  # not the same for every layer
    graphs = build()
    sizes = {name: graphs.serving.get_layer(name.partition("/")[0]).get_weights()[0].size for name in shares}
    whole = sum(shares[name] * size for name, size in sizes.items()) / sum(sizes.values())
    assert whole == pytest.approx(0.5, abs=0.04)


def test_the_very_zeros_that_were_chosen_stay_however_they_are_trained():
    model = linear()
    worth = importance.importance(Graphs(model, model, "", None), np.tile(HISTORIES, (8, 1)))
    settings = Pruning(criterion="first-order", schedule="constant", epochs=2)
    shares = prune.zeroed(model, worth, 0.5)
    chosen = {name: model.get_layer(name).get_weights()[0] == 0 for name in ("item_embedding", "off")}
    pruned = prune.prune(model, settings, steps_per_epoch=6, shares=shares)
    optimizer = keras.optimizers.legacy.Adam(0.3)
    for _ in range(2 * 6):
        with tf.GradientTape() as tape:
            scores = pruned(HISTORIES, training=True)
            loss = -tf.reduce_mean(tf.math.log_softmax(scores)[:, 1])
        optimizer.minimize(loss, pruned.trainable_variables, tape=tape)
    prune.strip(pruned, model)
    for name, zeros in chosen.items():
        weights = model.get_layer(name).get_weights()[0]
        assert (weights == 0).mean() == pytest.approx(zeros.mean(), abs=0.02)
        assert not weights[zeros].any()


def test_a_schedule_that_first_order_cannot_follow_is_refused():
    assert RECIPES["prune50-fisher-qat"].pruning == Pruning(criterion="first-order", schedule="constant")
    with pytest.raises(ConfigError, match="sets its zeros at once"):
        known({"mine": {"pruning": {"criterion": "first-order"}}})
