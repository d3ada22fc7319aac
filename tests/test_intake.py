"""A user's own model comes in by file, or is refused in one sentence that names the file."""

import numpy as np
import pytest

from edgepack.convert import intake, tflite
from edgepack.errors import ConvertError
from edgepack.keras2 import keras, tf

ITEMS, LENGTH = 40, 6
HISTORIES = np.random.default_rng(2).integers(1, ITEMS + 1, (16, LENGTH)).astype(np.int32)

OWN = """
from edgepack.keras2 import keras


def build(item_count, length):
    ids = keras.Input((length,), dtype="int32", name="items")
    x = keras.layers.Embedding(item_count + 1, 8, name="rows")(ids)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(ids, keras.layers.Dense(item_count + 1, name="scores")(x), name="own")
"""


def own_model(library, items=ITEMS):
    ids = library.Input((LENGTH,), dtype="int32", name="items")
    x = library.layers.Embedding(items + 1, 8, name="rows")(ids)
    x = library.layers.GlobalAveragePooling1D(name="pool")(x)
    return library.Model(ids, library.layers.Dense(items + 1, name="scores")(x), name="own")


def save_python(path):
    path.write_text(OWN)


def save_keras2(path):
    own_model(keras).save(path)


def save_keras3(path):
    import keras as keras3

    own_model(keras3).save(path)


def save_saved_model(path):
    tf.saved_model.save(own_model(keras), str(path))


KINDS = [
    ("own.py", save_python, "python", False, True),
    ("own.keras", save_keras2, "keras2", True, True),
    ("own.h5", save_keras2, "keras2", True, True),
    ("own3.keras", save_keras3, "keras3", True, False),
    ("own_saved", save_saved_model, "saved-model", True, False),
]


@pytest.mark.parametrize(("name", "save", "kind", "trained", "trainable"), KINDS)
def test_every_kind_of_model_comes_in_and_converts(name, save, kind, trained, trainable, tmp_path):
    path = tmp_path / name
    save(path)
    taken = intake.describe(path)
    assert (taken.kind, taken.comes_trained, not taken.why_not_trained_further) == (kind, trained, trainable)
    graphs = intake.graphs(path, item_count=ITEMS, length=LENGTH)
    assert graphs.training is graphs.serving
    assert graphs.serving(HISTORIES).shape == (16, ITEMS + 1)
    data = tflite.convert(graphs.serving, "tflite-int8", length=LENGTH, calibration=HISTORIES)
    assert data[4:8] == b"TFL3"


def test_a_foreign_model_gives_the_scores_it_gave_before(tmp_path):
    model = own_model(keras)
    tf.saved_model.save(model, str(tmp_path / "saved"))
    taken = intake.graphs(tmp_path / "saved", item_count=ITEMS, length=LENGTH)
    np.testing.assert_allclose(taken.serving(HISTORIES), model(HISTORIES), rtol=1e-6)


def test_the_hash_follows_the_content(tmp_path):
    path = tmp_path / "own.py"
    save_python(path)
    before = intake.describe(path).sha256
    path.write_text(OWN + "\n")
    assert intake.describe(path).sha256 != before


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("gone.keras", None, "no such file"),
        ("model.pt", b"x", "'.pt' is no format"),
        ("torn.keras", b"PK not a zip", "is no format"),
        ("broken.py", b"def build(:", "failed"),
        ("empty.py", b"x = 1", "no attribute 'build'"),
        ("other.py", b"def build(item_count, length):\n    return 3", "returned a builtins.int"),
    ],
)
def test_what_cannot_be_taken_in_is_named(name, content, found, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConvertError, match=found) as raised:
        intake.graphs(path, item_count=ITEMS, length=LENGTH)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    ("items", "length", "found"),
    [(ITEMS + 3, LENGTH, "scores 41 items"), (ITEMS, LENGTH + 1, "reads 6 items")],
)
def test_a_wrong_signature_is_refused(items, length, found, tmp_path):
    path = tmp_path / "own.keras"
    save_keras2(path)
    with pytest.raises(ConvertError, match=found):
        intake.graphs(path, item_count=items, length=length)


def test_describing_a_model_loads_no_tensorflow(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "own.py"
    save_python(path)
    program = (
        "import sys, pathlib; from edgepack.convert import intake;"
        f"intake.describe(pathlib.Path({str(path)!r})); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
