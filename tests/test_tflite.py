"""TFLite files: every format runs in both runtimes as the Keras model does, small and repeatable."""

import numpy as np
import pytest
from edgepack.models import mf, neumf, sasrec

from edgepack.compress import qat
from edgepack.convert import flatbuffer, tflite
from edgepack.convert.float_scores import float_scores
from edgepack.errors import ConvertError
from edgepack.keras2 import deterministic, keras, tf
from edgepack.runtimes import host

ITEMS, LENGTH = 4000, 10
RNG = np.random.default_rng(1)
HISTORIES = RNG.integers(1, ITEMS + 1, (48, LENGTH)).astype(np.int32)
HISTORIES[:8, :6] = 0
HISTORIES[0] = 0


def build(family, **hyper):
    deterministic(5)
    graphs = family.build(ITEMS, LENGTH, **hyper)
    # Untrained tables give nearly equal scores; spread them as training does.
    table = graphs.serving.get_layer(graphs.table)
    table.set_weights([RNG.normal(0, 0.5, table.get_weights()[0].shape)])
    if graphs.tied:
        graphs.serving.get_layer(graphs.tied).set_weights([table.get_weights()[0].T])
    return graphs


@pytest.fixture(scope="module")
def sasrec_graphs():
    return build(sasrec, width=32, ffn_width=32)


@pytest.fixture(scope="module")
def files(sasrec_graphs):
    serving = sasrec_graphs.serving
    ready = qat.wrap_tables(serving, (sasrec_graphs.tied,))
    return {
        format: tflite.convert(
            ready if "int8" in format else serving, format, length=LENGTH, calibration=HISTORIES
        )
        for format in tflite.FORMATS
    }


def overlap_at_10(a, b):
    tops = [np.argsort(-np.asarray(scores)[:, 1:], axis=1, kind="stable")[:, :10] for scores in (a, b)]
    return np.mean([len(set(x) & set(y)) / 10 for x, y in zip(*tops, strict=True)])


LEAST_OVERLAP = {
    "tflite-float32": 1.0,
    "tflite-float16": 0.99,
    "tflite-dynamic": 0.93,
    "tflite-int8": 0.85,
    "tflite-int8-f32scores": 0.9,
}


@pytest.mark.parametrize("engine", ["litert", "tflite-runtime"])
@pytest.mark.parametrize("format", list(tflite.FORMATS))
def test_a_file_ranks_as_the_keras_model_in_both_runtimes(files, sasrec_graphs, format, engine, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(files[format])
    scores = host.run(engine, path, {"history": HISTORIES}, deadline_s=60)
    assert np.isfinite(scores).all()
    wanted = sasrec_graphs.serving(HISTORIES, training=False).numpy()
    assert overlap_at_10(wanted[1:], scores[1:]) >= LEAST_OVERLAP[format]


def test_input_and_output_carry_the_names_of_the_contract(files, tmp_path):
    for format, data in files.items():
        path = tmp_path / f"{format}.tflite"
        path.write_bytes(data)
        signature = host.signature(path)
        assert signature.inputs == (host.Tensor("history", "int32", (1, LENGTH)),)
        assert signature.outputs == (host.Tensor("scores", "float32", (1, ITEMS + 1)),)


def test_int8_is_at_most_thirty_per_cent_of_float(files):
    whole = len(files["tflite-float32"])
    for format in ("tflite-dynamic", "tflite-int8", "tflite-int8-f32scores"):
        assert len(files[format]) <= 0.30 * whole, (format, len(files[format]), whole)
        table_bytes = sum(flatbuffer.tables(files[format]).values())
        assert table_bytes == (ITEMS + 1) * 32, format


def test_the_same_model_converts_to_the_same_bytes(sasrec_graphs, files):
    again = tflite.convert(sasrec_graphs.serving, "tflite-dynamic", length=LENGTH, calibration=HISTORIES)
    assert again == files["tflite-dynamic"]
    assert all(flatbuffer.canonical(data) == data for data in files.values())


def test_float_scores_do_not_tie_where_int8_scores_do(files, tmp_path):
    distinct = {}
    for format in ("tflite-int8", "tflite-int8-f32scores"):
        path = tmp_path / f"{format}.tflite"
        path.write_bytes(files[format])
        scores = host.run("litert", path, {"history": HISTORIES[8:16]}, deadline_s=60)
        distinct[format] = min(len(np.unique(row)) for row in scores)
    assert distinct["tflite-int8"] <= 256
    assert distinct["tflite-int8-f32scores"] > 0.9 * ITEMS


def test_only_the_int8_file_computes_on_integers_alone(files):
    assert {f for f, data in files.items() if flatbuffer.is_all_integer(data)} == {"tflite-int8"}


def test_no_operator_is_newer_than_the_old_runtime_knows(files):
    for format, data in files.items():
        versions = [op.split()[1] for op in flatbuffer.op_list(data) if op.startswith("FULLY_CONNECTED")]
        assert all(int(version[1:]) <= 9 for version in versions), format


@pytest.mark.parametrize("family", [mf, neumf])
def test_the_other_families_convert_to_int8_and_keep_their_ranking(family, tmp_path):
    graphs = build(family)
    ready = qat.wrap_tables(graphs.serving, (graphs.tied,) if graphs.tied else ())
    data = tflite.convert(ready, "tflite-int8-f32scores", length=LENGTH, calibration=HISTORIES)
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    wanted = graphs.serving(HISTORIES, training=False).numpy()
    for engine in ("litert", "tflite-runtime"):
        scores = host.run(engine, path, {"history": HISTORIES}, deadline_s=60)
        assert overlap_at_10(wanted[1:], scores[1:]) >= 0.85, engine


def test_item_ids_past_sixteen_bits_are_looked_up_right(tmp_path):
    deterministic(6)
    graphs = mf.build(70_000, 4, width=8)
    data = tflite.convert(graphs.serving, "tflite-float32", length=4, calibration=HISTORIES[:, :4])
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    row = np.array([[0, 1, 65_537, 70_000]], np.int32)
    scores = host.run("litert", path, {"history": row}, deadline_s=60)
    np.testing.assert_allclose(scores, graphs.serving(row, training=False), rtol=1e-4, atol=1e-5)


def test_an_unknown_format_is_refused(sasrec_graphs):
    with pytest.raises(ConvertError, match="tflite-int4"):
        tflite.convert(sasrec_graphs.serving, "tflite-int4", length=LENGTH, calibration=HISTORIES)


def test_an_operation_that_tflite_lacks_is_one_sentence():
    class Determinant(keras.layers.Layer):
        def call(self, x):
            square = tf.reshape(tf.cast(x[:, :9], tf.float32), (-1, 3, 3))
            return tf.linalg.det(square)[:, None]

    ids = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(ids, Determinant(name="determinant")(ids), name="odd")
    with pytest.raises(ConvertError, match="odd: TensorFlow cannot convert it to tflite-float32"):
        tflite.convert(model, "tflite-float32", length=LENGTH, calibration=HISTORIES)


def test_a_file_without_a_dense_end_gets_no_float_scores(files):
    with pytest.raises(ConvertError, match="the graph ends with FULLY_CONNECTED"):
        float_scores(files["tflite-float32"])


def test_what_is_no_tflite_file_is_refused():
    with pytest.raises(ConvertError, match="identifier"):
        flatbuffer.read(b"not a model at all")
