"""Table formats: the levels that were trained stand in the shipped files, and pay off in a download."""

from typing import Any

import numpy as np
import pytest
from edgepack.models import neumf, sasrec
from edgepack.models.graphs import transfer

from edgepack import levels, ship
from edgepack.compress import importance, qat, steps
from edgepack.compress.recipes import RECIPES, Band, Grid, PostTraining, QuantizationAware, Recipe, Tables
from edgepack.compress.tables import formats, grid, low_rank
from edgepack.compress.weights import save_weights
from edgepack.convert import flatbuffer, onnx, onnx_graph, parity, promises, tflite
from edgepack.errors import ConvertError
from edgepack.keras2 import deterministic, keras, tf
from edgepack.runtimes import host
from tests.test_compress import compress

ITEMS, LENGTH, WIDTH = 120, 8, 16
RNG = np.random.default_rng(4)
HISTORIES = RNG.integers(1, ITEMS + 1, (48, LENGTH)).astype(np.int32)
HISTORIES[:8, :5] = 0
POPULARITY = np.append(0, RNG.permutation(ITEMS) + 1).astype(np.int64)


def build(family=sasrec, **hyper):
    deterministic(3)
    graphs = family.build(ITEMS, LENGTH, **(hyper or {"width": WIDTH, "ffn_width": WIDTH}))
    table = graphs.training.get_layer(graphs.table)
    # Untrained rows are all alike; spread them as training does, some axes much more than others.
    shape = table.get_weights()[0].shape
    table.set_weights([np.random.default_rng(5).normal(0, 0.5, shape) * 0.9 ** np.arange(shape[1])])
    steps._to_serving(graphs)
    return graphs


def finetune(graphs, *, epochs, learning_rate, keep_last, distil, table, work):
    """Teach every history its own last item, 8 steps an epoch."""
    rows = graphs.rows or (lambda _, weights: weights)
    model, optimizer = graphs.training, keras.optimizers.Adam(learning_rate)
    targets = tf.constant(HISTORIES[:, -1])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            hidden = model(HISTORIES, training=True)[:, -1]
            logits = tf.matmul(hidden, rows(model, tf.convert_to_tensor(table())), transpose_b=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
            loss += tf.add_n([tf.constant(0.0), *model.losses])
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(8 * epochs):
        step()


def compressed(folder, tables, quantization=None, built=build):
    recipe = Recipe(name="tables", tables=tables, quantization=quantization)
    save_weights(built().training, folder / "float.npz")
    steps.compress(
        built,
        folder / "float.npz",
        recipe,
        calibration=HISTORIES,
        steps_per_epoch=8,
        finetune=finetune,
        work=folder,
        popularity=POPULARITY,
    )
    return steps.restore(build, folder, quantized=False), steps.restore(build, folder, quantized=True)


AXES = Tables(rank_share=0.75, table=Grid(step=0.6), network=Grid(levels=7), epochs=1)
FORMATS = ("tflite-int8-f32scores", "onnx-float32", "onnx-dynamic", "onnx-qdq")


@pytest.fixture(scope="module")
def axes(tmp_path_factory):
    """The plain and the quantized serving model of a recipe with everything in it."""
    return compressed(tmp_path_factory.mktemp("axes"), AXES, QuantizationAware(epochs=1))


@pytest.fixture(scope="module")
def files(axes):
    exported = onnx.export(axes[0], length=LENGTH)
    found = {f: onnx.quantized(exported, f, HISTORIES) for f in FORMATS[1:]}
    return found | {FORMATS[0]: tflite.convert(axes[1], FORMATS[0], length=LENGTH, calibration=HISTORIES)}


def weights_of(model):
    """Return the first weight of each layer that has a matrix, float32, by the layer's name."""
    first = {layer.name: layer.get_weights()[0] for layer in model.layers if layer.weights}
    return {name: values for name, values in first.items() if values.ndim == 2}


def on_grids(graphs, settings, popularity=None):
    """Return the matrices of the training graph, rounded and not trained."""
    wrapped = qat.wrap_grids(graphs.training, formats.rules(graphs.training, settings, popularity))
    qat.bake(wrapped)
    transfer(wrapped, graphs.training, table="", tied=None)
    return weights_of(graphs.training)


def test_every_matrix_has_the_levels_that_were_asked_for():
    found = on_grids(build(), Tables(table=Grid(levels=7), network=Grid(levels=1)))
    assert len(found) == 14  # six in each of two blocks, table, positions
    for name, values in found.items():
        most = 7 if name == "item_embedding" else 1
        assert np.abs(levels.levels_of(values)).max() == most, name


def test_training_leaves_every_matrix_on_its_grid(axes):
    found = weights_of(axes[0])
    turns = {name: found.pop(name) for name in low_rank.TURNS}
    assert len(turns) == 2 and len(found) == 11  # with scores
    assert found["item_embedding"].shape == (ITEMS + 1, 12)
    np.testing.assert_array_equal(found["scores"], found["item_embedding"].T)
    for name, values in found.items():
        assert levels.step_of(values) is not None, name
        if name not in ("item_embedding", "scores"):
            assert np.abs(levels.levels_of(values)).max() <= 7


def test_the_levels_stand_in_the_tflite_file_apart_and_the_table_once(axes, files):
    wanted = {name: levels.levels_of(values) for name, values in weights_of(axes[0]).items()}
    constants = flatbuffer.constants(files["tflite-int8-f32scores"])
    stored = {c.name.split("/")[0]: c.values for c in constants if c.values.dtype == np.int8}
    assert "scores" not in stored
    assert set(low_rank.TURNS) <= set(stored)
    checked = [name for name in wanted if name in stored and name not in low_rank.TURNS]
    assert {"item_embedding", "block0_query", "block1_ffn_out"} <= set(checked)
    for name in checked:
        ours = wanted[name] if name == "item_embedding" else wanted[name].T
        np.testing.assert_allclose(stored[name], ours * (127 / np.abs(ours).max()), atol=0.51)
        assert len(np.unique(stored[name])) == len(np.unique(ours)), name


@pytest.mark.parametrize("format", ["onnx-dynamic", "onnx-qdq"])
def test_an_onnx_file_holds_the_very_levels(axes, files, format):
    wanted = {name: levels.levels_of(values) for name, values in weights_of(axes[0]).items()}
    graph = onnx_graph.parse(files[format])
    stored = [a for a in graph.weights.values() if a.dtype == np.int8 and a.ndim == 2]
    # The two turns are too small here to be worth a scale, and stay float32.
    for name in ("item_embedding", "block0_query", "block1_ffn_out"):
        same = [a for a in stored if np.array_equal(a, wanted[name]) or np.array_equal(a, wanted[name].T)]
        assert len(same) == 1, name


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_every_format_ranks_as_the_keras_model(axes, files, format, tmp_path):
    path = tmp_path / "model"
    path.write_bytes(files[format])
    engine, model = ("litert", axes[1]) if format.startswith("tflite") else ("onnxruntime", axes[0])
    scores = host.run(engine, path, {"history": HISTORIES}, deadline_s=60)
    assert parity.check(model(HISTORIES, training=False).numpy(), scores, format).reason == ""
    assert promises.broken(files[format], format) == ()


def test_full_rank_scores_as_before_and_lower_rank_as_its_best_approximation():
    graphs = build()
    before = graphs.serving(HISTORIES).numpy()
    np.testing.assert_allclose(low_rank.low_rank(graphs, WIDTH).serving(HISTORIES).numpy(), before, atol=1e-4)
    narrow = low_rank.low_rank(graphs, 5)
    values = graphs.training.get_layer("item_embedding").get_weights()[0]
    left, sizes, right = np.linalg.svd(values, full_matrices=False)
    best = (left[:, :5] * sizes[:5]) @ right[:5]
    product = weights_of(narrow.training)["item_embedding"] @ weights_of(narrow.training)["table_turn"]
    np.testing.assert_allclose(product, best, atol=1e-5)
    assert [e.shape for e in narrow.serving.get_layer("scores").get_weights()] == [(5, ITEMS + 1)]


def test_fewer_axes_leave_out_what_costs_the_ranking_least():
    graphs = build()
    values = graphs.training.get_layer("item_embedding").get_weights()[0]
    axes = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))[0]
    metric = (axes * np.geomspace(1, 1e-3, WIDTH)) @ axes.T

    def cost(found):
        table, turn = (weights_of(found.training)[n] for n in ("item_embedding", "table_turn"))
        off = values - table @ turn
        return float(np.einsum("vi,ij,vj->", off, metric, off))

    assert cost(low_rank.low_rank(graphs, 5, metric)) < 0.5 * cost(low_rank.low_rank(graphs, 5))
    before, whole = graphs.serving(HISTORIES), low_rank.low_rank(graphs, WIDTH, metric).serving(HISTORIES)
    np.testing.assert_allclose(whole.numpy(), before.numpy(), atol=1e-3)


def test_rows_get_finer_steps_the_more_their_errors_cost():
    worth = np.array([9.0, 1.0, 1.0, 1.0, 1e3, 1e-3, 1e-9, 0.0])
    assert grid.worth_multiples(worth).tolist()[1:] == [2, 2, 2, 1, 8, 8, 8]
    popular = importance.TableWorth(np.eye(WIDTH), POPULARITY.astype(np.float64) ** 4)
    settings = Tables(table=Grid(step=0.1), by_worth=True)
    steps_of = formats.rules(build().training, settings, POPULARITY, popular)["item_embedding"]["embeddings"]
    by_row = steps_of.steps[1:, 0] / steps_of.steps.min()
    assert set(by_row) <= {1.0, 2.0, 4.0, 8.0} and len(set(by_row)) > 1
    order = np.argsort(POPULARITY[1:], kind="stable")
    assert (np.diff(by_row[order]) <= 0).all()


def test_bits_are_about_what_an_entropy_coder_takes():
    for scale in (0.5, 2.0, 8.0):
        counted = np.random.default_rng(1).laplace(0, scale, (20_000, 1)).astype(np.float32)
        _, counts = np.unique(np.rint(counted), return_counts=True)
        shares = counts / counts.sum()
        entropy = -float((shares * np.log2(shares)).sum())
        assert float(grid.bits(tf.constant(counted))) == pytest.approx(entropy, abs=0.4), scale
    assert float(grid.bits(tf.zeros((4, 3)))) == 0.0


def test_a_price_for_bits_makes_training_spend_fewer(tmp_path):
    in_bytes = []
    for rate in (0.0, 20.0):
        folder = tmp_path / str(rate)
        folder.mkdir()
        tables = Tables(rank_share=1.0, table=Grid(step=0.2, rate=rate), epochs=2, learning_rate=0.03)
        plain, _ = compressed(folder, tables)
        in_bytes.append(levels.deflated_bytes(levels.levels_of(weights_of(plain)["item_embedding"])))
    assert in_bytes[1] < 0.9 * in_bytes[0]


def test_low_rank_refuses_what_it_cannot_do():
    with pytest.raises(ConvertError, match="a table of rank 17 was asked for"):
        low_rank.low_rank(build(), WIDTH + 1)
    with pytest.raises(ConvertError, match="no product with its item table"):
        low_rank.low_rank(build(neumf, width=8, mlp_in=8, mlp_out=8), 4)
    for asked in (Tables(rank_share=0.5), Tables(table=Grid(), by_worth=True)):
        with pytest.raises(ConvertError, match="no product with its item table"):
            formats.worth_of(build(neumf, width=8, mlp_in=8, mlp_out=8), asked, HISTORIES)


def test_principal_axes_hold_the_same_table_in_fewer_bytes():
    values = np.random.default_rng(5).normal(0, 0.5, (2001, WIDTH)) * 0.8 ** np.arange(WIDTH)
    # Turned so that every column varies alike, as the columns of a trained table do.
    values = values @ np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    left, sizes, _ = np.linalg.svd(values, full_matrices=False)
    step = grid.rule_of(values, Grid(step=0.8)).steps
    in_bytes, errors = [], []
    for table in (values, left * sizes):
        counts = np.rint(table / step)
        in_bytes.append(levels.deflated_bytes(counts.astype(np.int8)))
        errors.append(float(np.std(counts * step - table)))
    assert errors[1] <= 1.05 * errors[0]
    assert in_bytes[1] < 0.85 * in_bytes[0]


BANDS = (Band(share=0.25, multiple=1), Band(share=0.25, multiple=2), Band(share=0.5, multiple=4))


def test_popular_items_get_the_fine_steps_on_one_scale():
    found = on_grids(build(), Tables(table=Grid(step=0.1), bands=BANDS), POPULARITY)["item_embedding"]
    stored = levels.levels_of(found)
    order = 1 + np.argsort(-POPULARITY[1:])
    head, middle, tail = order[:30], order[30:60], order[60:]
    assert (stored[tail] % 4 == 0).all()
    assert (stored[middle] % 2 == 0).all() and (stored[middle] % 4 != 0).any()
    assert (stored[head] % 2 != 0).any()


def test_which_of_equally_popular_items_have_rows_does_not_follow_their_numbers():
    # Numbers go by all events, those that quality is measured on included.
    multiples = grid.row_multiples(
        np.full(1001, 3), (Band(share=0.5, multiple=1), Band(share=0.5, multiple=0))
    )
    kept = np.flatnonzero(multiples[1:])
    assert len(kept) == 500
    assert 200 < (kept < 500).sum() < 300


def with_positions_of_the_rows_size():
    """Return graphs in which an item without a row still is something to normalize: its place."""
    graphs = build()
    positions = graphs.training.get_layer("positions")
    positions.set_weights([np.random.default_rng(8).normal(0, 0.5, positions.get_weights()[0].shape)])
    steps._to_serving(graphs)
    return graphs


def test_rare_items_may_be_left_without_a_row(tmp_path):
    bands = (Band(share=0.5, multiple=1), Band(share=0.25, multiple=2), Band(share=0.25, multiple=0))
    settings = Tables(rank_share=1.0, table=Grid(step=0.1, rate=0.01), bands=bands, epochs=1)
    qat_settings = QuantizationAware(epochs=1)
    plain, quantized = compressed(tmp_path, settings, qat_settings, with_positions_of_the_rows_size)
    order = 1 + np.argsort(-POPULARITY[1:])
    rows = plain.get_layer("item_embedding").get_weights()[0]
    assert not rows[order[90:]].any()
    assert rows[order[:90]].any(axis=1).all()
    for model in (plain, quantized):
        scores = model(HISTORIES, training=False).numpy()
        assert np.isfinite(scores).all()
        assert not scores[:, order[90:]].any()
        assert scores[:, order[:90]].any(axis=0).all()
    data = tflite.convert(quantized, "tflite-int8-f32scores", length=LENGTH, calibration=HISTORIES)
    (tmp_path / "model.tflite").write_bytes(data)
    found = host.run("litert", tmp_path / "model.tflite", {"history": HISTORIES}, deadline_s=60)
    wanted = quantized(HISTORIES, training=False).numpy()
    assert parity.check(wanted, found, "tflite-int8-f32scores").reason == ""


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"table": Grid(), "bands": (Band(share=0.5, multiple=0),)}, "give one band a multiple of 1 or more"),
        ({"bands": (Band(share=0.5, multiple=2),)}, "give table levels or a step"),
        ({"by_worth": True}, "give table levels or a step"),
        ({"table": Grid(), "bands": (Band(share=0.6, multiple=1),) * 2}, "may sum to 1 at most"),
    ],
    ids=["no row is left", "bands of no grid", "worth of no grid", "more than all items"],
)
def test_steps_by_row_that_mean_nothing_are_refused(asked: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        Tables(**asked)


def test_a_table_stored_twice_is_found_in_tflite_and_in_onnx():
    history = keras.Input((LENGTH,), dtype="int32", name="history")
    values = RNG.normal(size=(ITEMS + 1, WIDTH)).astype(np.float32)
    rows = keras.layers.Embedding(ITEMS + 1, WIDTH, weights=[values], name="item_embedding")(history)
    hidden = keras.layers.GlobalAveragePooling1D()(rows)
    off = keras.layers.Dense(ITEMS + 1, use_bias=False, name="scores")
    model = keras.Model(history, off(hidden), name="twice")
    off.set_weights([values.T * 1.001])
    file = tflite.convert(model, "tflite-float32", length=LENGTH, calibration=HISTORIES)
    (said,) = promises.broken(file, "tflite-float32")
    assert said.startswith(
        "table item_embedding takes 15,488 bytes where tflite-float32 promises 7,744: stored again"
    )
    (said,) = promises.broken(onnx.export(model, length=LENGTH), "onnx-float32")
    assert "takes 15,488 bytes where onnx-float32 promises 7,744: stored again" in said
    assert (
        "a wider type" in promises.broken(file, "tflite-int8")[0]
        or "again" in promises.broken(file, "tflite-int8")[0]
    )
    off.set_weights([-values.T])
    exported = onnx.export(model, length=LENGTH)
    assert promises.broken(exported, "onnx-float32") == ()
    (said,) = promises.broken(exported, "onnx-dynamic")
    assert "takes 7,744 bytes where onnx-dynamic promises 1,936: stored in a wider type" in said


def test_a_bundle_says_every_setting_of_a_recipe_by_its_path():
    said = ship._recipe(RECIPES["table-axes-qat"])
    assert said["tables.table.step"] == 0.35
    assert said["tables.network.levels"] == 15
    assert all(isinstance(value, bool | int | float | str) for value in said.values())


def test_a_layer_that_the_model_does_not_have_is_named(tmp_path):
    for recipe, key in (
        (Recipe(name="own", tables=Tables(layers={"block0_qery": Grid()}, epochs=0)), "tables.layers"),
        (Recipe(name="own", post_training=PostTraining(float_layers=("block0_qery",))), "float_layers"),
    ):
        with pytest.raises(
            ConvertError, match=rf"{key}.*no layer 'block0_qery'.*Did you mean 'block0_query'"
        ):
            compress(build, recipe, tmp_path)
