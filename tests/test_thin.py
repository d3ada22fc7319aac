"""Structured pruning: hidden units disappear, those of no worth first, from the file too."""

import numpy as np
import pytest
from edgepack.models.folding import shipped

from edgepack.compress import steps, thin
from edgepack.compress.recipes import Recipe, Thinning
from edgepack.convert import flatbuffer, tflite
from edgepack.errors import ConvertError
from tests.test_compress import HISTORIES, LENGTH, build_neumf, build_sasrec, compress

FFN = ("block0_ffn_in", "block1_ffn_in")


def test_units_that_nobody_hears_go_first_and_no_score_changes():
    graphs = build_sasrec()
    dead = np.arange(16) % 2 == 0
    for name in FFN:
        for view in graphs[:2]:
            out = view.get_layer(name.replace("_in", "_out"))
            kernel, bias = out.get_weights()
            out.set_weights([kernel * ~dead[:, None], bias])
    before = graphs.serving(HISTORIES).numpy()
    thinned = thin.thin(graphs, Thinning(), HISTORIES)
    assert thinned.serving.get_layer(FFN[0]).units == 8
    assert thinned.serving.get_layer("block0_ffn_out").kernel.shape == (8, 16)
    np.testing.assert_allclose(thinned.serving(HISTORIES).numpy(), before, atol=1e-5 * np.abs(before).max())
    kept = graphs.training.get_layer(FFN[0]).kernel.numpy()[:, ~dead]
    np.testing.assert_array_equal(thinned.training.get_layer(FFN[0]).kernel.numpy(), kept)


def test_what_the_lost_units_gave_on_average_stays():
    graphs = build_sasrec()
    # A unit that is always on, and gives the same whatever comes, is all in the next layer's bias.
    for view in graphs[:2]:
        kernel, bias = view.get_layer(FFN[0]).get_weights()
        kernel[:, :8], bias[:8] = 0, 0.01
        view.get_layer(FFN[0]).set_weights([kernel, bias])
    before = graphs.serving(HISTORIES).numpy()
    thinned = thin.thin(graphs, Thinning(), HISTORIES)
    kernel = thinned.serving.get_layer(FFN[0]).kernel.numpy()
    assert np.abs(kernel).min(axis=0).min() > 0
    first = graphs.serving.get_layer("block0_ffn_out").bias.numpy()
    assert np.abs(thinned.serving.get_layer("block0_ffn_out").bias.numpy() - first).max() > 1e-4
    assert np.corrcoef(thinned.serving(HISTORIES).numpy().ravel(), before.ravel())[0, 1] > 0.99


def test_the_file_is_smaller_by_the_units_that_went(tmp_path):
    recipe = Recipe(name="thin50-ptq", thinning=Thinning(epochs=1))
    whole, folder = shipped(build_sasrec()), compress(build_sasrec, recipe, tmp_path)
    serving = steps.restore(build_sasrec, folder, quantized=True)
    assert serving.get_layer(FFN[1]).kernel.shape == (16, 8)
    sizes = {}
    for name, model in (("whole", whole.serving), ("thin", serving)):
        data = tflite.convert(model, "tflite-int8", length=LENGTH, calibration=HISTORIES)
        sizes[name] = [constant.values.size for constant in flatbuffer.constants(data)]
    assert sizes["whole"].count(16 * 8) == 0
    assert sizes["thin"].count(16 * 8) == 4
    assert sizes["whole"].count(16 * 16) - sizes["thin"].count(16 * 16) == 4


def test_a_model_without_hidden_units_is_refused():
    with pytest.raises(ConvertError, match="no hidden units"):
        thin.thin(build_neumf(), Thinning(), HISTORIES)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_of_every_layer_that_is_wide_enough_something_goes_and_something_stays(share):
    for units in range(9, 70):
        width = thin._width(units, share)
        assert 8 <= width < units
        assert width % 8 == 0
