"""A model file's bytes are told apart into item tables and network, whatever kind of file it is."""

import numpy as np
import pytest

from edgepack.convert import onnx, tflite
from edgepack.convert.makeup import makeup
from edgepack.errors import ConvertError
from edgepack.keras2 import keras

ITEMS, LENGTH, WIDTH = 90, 6, 8
NETWORK = WIDTH * 24 + 24 + 24 * WIDTH + WIDTH


def model(library):
    ids = library.Input((LENGTH,), dtype="int32", name="history")
    x = library.layers.Embedding(ITEMS + 1, WIDTH, name="rows")(ids)
    x = library.layers.GlobalAveragePooling1D(name="pool")(x)
    x = library.layers.Dense(24, activation="relu", name="wide")(x)
    x = library.layers.Dense(WIDTH, name="narrow")(x)
    made = library.Model(ids, library.layers.Dense(ITEMS + 1, use_bias=False, name="scores")(x), name="own")
    made.get_layer("scores").set_weights([np.transpose(made.get_layer("rows").get_weights()[0])])
    return made


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_stores_its_tied_table_twice(tmp_path, suffix):
    path = tmp_path / f"own{suffix}"
    model(keras).save(path)
    found = makeup(path)
    assert [(t.rows, t.width, t.dtype, t.copies) for t in found.tables] == [(ITEMS + 1, WIDTH, "float32", 2)]
    assert found.network_weights == NETWORK
    assert found.stored_bytes == 4 * (NETWORK + 2 * (ITEMS + 1) * WIDTH)


def test_a_file_of_keras_3_is_read_as_well(tmp_path):
    import keras as keras3

    model(keras3).save(tmp_path / "own.keras")
    found = makeup(tmp_path / "own.keras")
    assert (found.tables[0].weights, found.network_weights) == ((ITEMS + 1) * WIDTH, NETWORK)


def test_converted_float_files_store_it_once_and_a_plain_int8_file_in_two_roundings(tmp_path):
    made = model(keras)
    rows = np.random.default_rng(1).integers(1, ITEMS + 1, (8, LENGTH)).astype(np.int32)
    formats = {"float.tflite": "tflite-float32", "int8.tflite": "tflite-int8", "float.onnx": "onnx-float32"}
    dtypes = {"float.tflite": ["float32"], "int8.tflite": ["int8", "int8"], "float.onnx": ["float32"]}
    for name, format in formats.items():
        convert = tflite.convert if format.startswith("tflite") else onnx.convert
        (tmp_path / name).write_bytes(convert(made, format, length=LENGTH, calibration=rows))
        found = makeup(tmp_path / name)
        assert [t.dtype for t in found.tables] == dtypes[name], name
        assert {(t.rows, t.width, t.copies) for t in found.tables} == {(ITEMS + 1, WIDTH, 1)}, name


def test_what_has_no_weights_that_can_be_read_is_refused(tmp_path):
    (tmp_path / "own.py").write_text("x = 1\n")
    with pytest.raises(ConvertError, match=r"own\.py.*\.keras, \.h5.*Save the model as \.keras"):
        makeup(tmp_path / "own.py")
    with pytest.raises(ConvertError, match=r"none\.keras"):
        makeup(tmp_path / "none.keras")
