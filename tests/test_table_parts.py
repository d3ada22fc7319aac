"""Tables whose rows are made up of parts: item codes, and rows that items share with a scale each."""

import functools

import numpy as np
import pytest
from edgepack.models import neumf
from edgepack.models.folding import shipped

from edgepack import levels
from edgepack.compress import steps
from edgepack.compress.recipes import Codes, Grid, Hashed, QuantizationAware, Tables
from edgepack.compress.tables import codes, formats, hashed
from edgepack.convert import flatbuffer, onnx, onnx_graph, parity, promises, tflite
from edgepack.errors import ConvertError
from edgepack.runtimes import host
from tests.test_tables import HISTORIES, ITEMS, LENGTH, POPULARITY, WIDTH, build, compressed

CODES = Codes(groups=3, values=32, kept_share=0.8)
CODED = Tables(codes=CODES, table=Grid(levels=15), network=Grid(levels=31), epochs=1)


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """The plain and the quantized serving model of a recipe with item codes."""
    return compressed(tmp_path_factory.mktemp("codes"), CODED, QuantizationAware(epochs=1))


def codes_of(model, layer=codes.LOOK_UP):
    return np.stack(model.get_layer(layer).get_weights())


def test_a_row_is_the_sum_of_its_books_rows_in_training_and_in_serving():
    graphs = codes.coded(build(), CODES, POPULARITY)
    books = graphs.training.get_layer(graphs.table).get_weights()[0].reshape(3, 32, WIDTH)
    rows = sum(books[group][codes_of(graphs.training)[group]] for group in range(3))
    found = graphs.rows(graphs.training, books.reshape(-1, WIDTH)).numpy()
    np.testing.assert_allclose(found, rows, rtol=0, atol=1e-6)
    assert rows.shape == (ITEMS + 1, WIDTH)
    scores = graphs.training(HISTORIES).numpy()[:, -1] @ rows.T
    np.testing.assert_allclose(graphs.serving(HISTORIES).numpy(), scores, rtol=0, atol=1e-4)


def test_without_counts_all_items_are_alike_and_still_have_codes():
    trained = shipped(build())
    graphs = formats.shaped(trained, CODED, formats.worth_of(trained, CODED, HISTORIES))
    assert (codes_of(graphs.serving) > 0).any(axis=0).all()


def test_books_leave_less_over_the_more_there_are():
    table = build().training.get_layer("item_embedding").get_weights()[0]

    def error(groups):
        made = codes.fit(table, Codes(groups=groups, values=16), POPULARITY)
        rows = made.books.reshape(groups, 16, WIDTH)[np.arange(groups)[:, None], made.codes].sum(axis=0)
        return float(((rows - table)[1:] ** 2).sum() / (table[1:] ** 2).sum())

    errors = [error(groups) for groups in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 < errors[0]


def test_popular_items_keep_more_of_their_codes():
    table = build().training.get_layer("item_embedding").get_weights()[0]
    found = codes.fit(table, Codes(groups=4, values=16, kept_share=0.5), POPULARITY).codes
    kept = (found > 0).sum(axis=0)
    assert kept.sum() == 0.5 * 4 * (ITEMS + 1)
    assert kept.min() == 1
    # A later code is there only where the earlier ones are.
    assert all((found[:n, i] > 0).all() and not found[n:, i].any() for i, n in enumerate(kept))
    order = np.argsort(POPULARITY[1:])
    assert kept[1:][order[-30:]].mean() > kept[1:][order[:30]].mean()


def test_training_leaves_the_books_on_their_grid_and_every_layer_with_the_same_codes(coded):
    wanted = codes_of(coded[0])
    assert wanted.max() < 32
    assert (wanted > 0).any(axis=0).all()
    for model in coded:
        assert np.array_equal(codes_of(model), wanted)
        assert np.array_equal(codes_of(model, codes.SCORES), wanted)
    books = coded[0].get_layer("item_embedding").get_weights()[0]
    assert len(np.unique(np.round(books / levels.step_of(books)))) <= 31


@pytest.fixture(scope="module")
def coded_files(coded):
    """Files of the model with codes, each converted once."""
    plain, quantized = coded

    @functools.cache
    def converted(format):
        model = quantized if format.startswith("tflite-int8") else plain
        convert = tflite.convert if format.startswith("tflite") else onnx.convert
        return model, convert(model, format, length=LENGTH, calibration=HISTORIES)

    return converted


@pytest.mark.parametrize("format", ["tflite-int8-f32scores", "tflite-float32", "onnx-qdq", "ort-qdq"])
def test_a_file_with_codes_ranks_as_the_keras_model(coded_files, format, tmp_path):
    model, data = coded_files(format)
    path = tmp_path / f"model.{format.partition('-')[0]}"
    path.write_bytes(data)
    engine = "litert" if format.startswith("tflite") else "onnxruntime"
    scores = host.run(engine, path, {"history": HISTORIES}, deadline_s=60)
    assert parity.check(model(HISTORIES, training=False).numpy(), scores, format).reason == ""


def test_a_file_holds_each_code_once_in_a_byte(coded, coded_files):
    _, data = coded_files("tflite-int8-f32scores")
    stored = [c for c in flatbuffer.constants(data) if "/codes" in c.name]
    wanted = codes_of(coded[0]).astype(np.uint8)
    assert [c.values.dtype for c in stored] == [np.uint8] * 3
    assert {c.values.tobytes() for c in stored} == {one.tobytes() for one in wanted}
    assert sum(flatbuffer.tables(data).values()) == 3 * (ITEMS + 1) + 3 * 32 * WIDTH
    assert promises.broken(data, "tflite-int8-f32scores") == ()
    assert onnx.table_bytes(coded_files("onnx-qdq")[1]) == 3 * (ITEMS + 1) + 3 * 32 * WIDTH


HASHED = Tables(hashed=Hashed(share=0.25), epochs=1)
SHARED_ROWS = 30


def alike():
    """Return graphs whose table is what hashing can hold: 30 rows, and 121 items that have a scale each."""
    graphs = build()
    draw = np.random.default_rng(6)
    rows, scales = draw.normal(0, 0.4, (SHARED_ROWS, WIDTH)), draw.uniform(0.5, 1.5, (ITEMS + 1, 1))
    graphs.training.get_layer(graphs.table).set_weights([rows[np.arange(ITEMS + 1) % SHARED_ROWS] * scales])
    steps._to_serving(graphs)
    return graphs


def test_hashing_loses_nothing_of_a_table_that_it_can_hold():
    graphs = alike()
    table = graphs.training.get_layer(graphs.table).get_weights()[0]
    smaller = hashed.hashed(graphs, HASHED.hashed, POPULARITY)
    books = smaller.training.get_layer(graphs.table).get_weights()[0]
    scales = smaller.training.get_layer(hashed.SCALES).get_weights()[0]
    assert books.shape == (SHARED_ROWS, WIDTH) and scales.shape == (ITEMS + 1, 1)
    np.testing.assert_allclose(books[np.arange(ITEMS + 1) % SHARED_ROWS] * scales, table, atol=1e-5)
    np.testing.assert_allclose(smaller.rows(smaller.training, books), table, atol=1e-5)
    np.testing.assert_allclose(smaller.training(HISTORIES), graphs.training(HISTORIES), atol=1e-4)
    np.testing.assert_allclose(smaller.serving(HISTORIES), graphs.serving(HISTORIES), atol=1e-4)


def test_items_that_share_a_row_lose_least_where_they_are_popular_and_where_the_metric_looks():
    table = build().training.get_layer("item_embedding").get_weights()[0]
    popular = np.where(np.arange(ITEMS + 1) < 10, 1000, 0)

    def errors(popularity, metric=None):
        made = hashed.fit(table, SHARED_ROWS, popularity, metric)
        return (made.rows[np.arange(ITEMS + 1) % SHARED_ROWS] * made.scales - table) ** 2

    evenly, skewed = errors(np.ones(ITEMS + 1, np.int64)), errors(popular)
    assert skewed[1:10].sum() < 0.05 * evenly[1:10].sum()
    first = np.diag([100.0, *np.ones(WIDTH - 1)])
    assert errors(popular, first)[:, 0].sum() < 0.5 * skewed[:, 0].sum()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The plain and the quantized serving model of a hashed table, trained."""
    return compressed(tmp_path_factory.mktemp("hashed"), HASHED, QuantizationAware(epochs=1), alike)


def test_training_changes_rows_and_scales_of_a_hashed_table(shared):
    before = hashed.hashed(shipped(alike()), HASHED.hashed, POPULARITY).training
    for name in ("item_embedding", hashed.SCALES):
        trained = [model.get_layer(name).get_weights()[0] for model in shared[:1]]
        assert np.abs(trained[0] - before.get_layer(name).get_weights()[0]).max() > 1e-3
    np.testing.assert_array_equal(
        shared[0].get_layer("scores").get_weights()[0],
        shared[0].get_layer("item_embedding").get_weights()[0].T,
    )


@pytest.mark.parametrize("format", ["tflite-int8", "tflite-int8-f32scores", "onnx-qdq", "ort-qdq"])
def test_a_file_with_a_hashed_table_ranks_as_the_keras_model_and_holds_it_once(shared, format, tmp_path):
    plain, quantized = shared
    model = quantized if format.startswith("tflite-int8") else plain
    convert = tflite.convert if format.startswith("tflite") else onnx.convert
    data = convert(model, format, length=LENGTH, calibration=HISTORIES)
    path = tmp_path / f"model.{format.partition('-')[0]}"
    path.write_bytes(data)
    engine = "litert" if format.startswith("tflite") else "onnxruntime"
    scores = host.run(engine, path, {"history": HISTORIES}, deadline_s=60)
    assert parity.check(model(HISTORIES, training=False).numpy(), scores, format).reason == ""
    if format.startswith("tflite"):
        assert sum(flatbuffer.tables(data).values()) == SHARED_ROWS * WIDTH + ITEMS + 1
        columns = [c.values for c in flatbuffer.constants(data) if c.values.size == ITEMS + 1]
        assert [c.dtype for c in columns] == [np.int8]
    elif format.startswith("onnx"):
        sizes = [a.size for a in onnx_graph.parse(data).weights.values()]
        assert sizes.count(ITEMS + 1) == 1 and sizes.count(SHARED_ROWS * WIDTH) == 1


def test_hashing_is_refused_where_it_cannot_be():
    with pytest.raises(ConvertError, match="scores by no product with its item table"):
        hashed.hashed(build(neumf, width=8), HASHED.hashed, POPULARITY)
    with pytest.raises(ValueError, match="codes and hashed both take the table's place"):
        Tables(codes=CODES, hashed=Hashed())
    with pytest.raises(ValueError, match="leave out rank_share, bands, by_worth and control"):
        Tables(hashed=Hashed(), rank_share=1.0)


def test_codes_are_refused_where_they_cannot_be():
    with pytest.raises(ConvertError, match="scores by no product with its item table"):
        codes.coded(build(neumf, width=8), CODES, POPULARITY)
    with pytest.raises(ValueError, match="leave out rank_share, bands, by_worth and control"):
        Tables(codes=CODES, by_worth=True)
