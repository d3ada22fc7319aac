"""Ranges that are read off rounded layers: they hold what rounding has moved, where float ones cut it off."""

import numpy as np
import pytest
from edgepack.models.graphs import Graphs

from edgepack import ranges
from edgepack.compress import qat, steps
from edgepack.compress.recipes import RECIPES, PostTraining, Recipe
from edgepack.compress.weights import save_weights
from edgepack.convert import onnx, onnx_graph, onnx_quantize, tflite
from edgepack.keras2 import keras
from edgepack.runtimes import host

ITEMS, LENGTH, UNITS, CONSTANTS = 40, 4, 16, 256
HISTORIES = np.random.default_rng(3).integers(1, ITEMS + 1, (64, LENGTH)).astype(np.int32)
FLOAT_RANGES = Recipe(name="float-ranges", post_training=PostTraining())
LAYERS = ("first", "second")


def build():
    """A model whose first layer sums many weights just above half a step: rounding nearly doubles them.

    What they add is the same for every history and every unit, and the scores read differences alone. No
    layer has a bias that could take the shift away.
    """
    ids = keras.Input((LENGTH,), dtype="int32", name="history")
    x = keras.layers.Embedding(ITEMS + 1, UNITS + CONSTANTS, name="rows")(ids)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    for name in LAYERS:
        x = keras.layers.Dense(UNITS, use_bias=False, name=name)(x)
    model = keras.Model(ids, keras.layers.Dense(ITEMS + 1, use_bias=False, name="scores")(x))
    rng = np.random.default_rng(4)
    rows = rng.uniform(0, 1, (ITEMS + 1, UNITS))
    differences = rng.normal(0, 1, (UNITS, ITEMS + 1))
    model.set_weights(
        [
            np.hstack([rows, np.ones((ITEMS + 1, CONSTANTS))]),
            np.vstack([np.eye(UNITS), np.full((CONSTANTS, UNITS), 0.51 / 127)]),
            np.eye(UNITS),
            differences - differences.mean(axis=0),
        ]
    )
    return Graphs(model, model, "", None)


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    weights = tmp_path_factory.mktemp("float") / "weights.npz"
    save_weights(build().training, weights)

    def folder(recipe):
        work = tmp_path_factory.mktemp(recipe.name)
        steps.compress(
            build, weights, recipe, calibration=HISTORIES, steps_per_epoch=1, finetune=None, work=work
        )
        return work

    return {
        recipe.name: folder(recipe)
        for recipe in (
            FLOAT_RANGES,
            RECIPES["ptq-ranges"],
            Recipe(name="mse", post_training=PostTraining(calibration="mse", range_correction=True)),
        )
    }


def rounded(folder):
    return steps.restore(build, folder, quantized=True)


def arriving(wrapped, layer):
    """Return what the rounded layers before give a layer, multiplied with its rounded kernel, float32."""
    wrapper = wrapped.get_layer(f"quant_{layer}")
    inputs = keras.Model(wrapped.inputs, wrapper.input)(HISTORIES)
    weight, quantizer, variables = wrapper._weight_vars[0]
    return (inputs @ quantizer(weight, False, weights=variables)).numpy()


def ends(wrapped, layer):
    variables = wrapped.get_layer(f"quant_{layer}")._output_quantizer_vars
    return float(variables["min_var"]), float(variables["max_var"])


@pytest.mark.parametrize("layer", LAYERS)
def test_ranges_of_the_float_model_cut_off_what_rounding_has_moved(layer, carried_out):
    wrapped = rounded(carried_out["float-ranges"])
    assert (arriving(wrapped, layer) >= ends(wrapped, layer)[1]).mean() > 0.9


@pytest.mark.parametrize("layer", LAYERS)
def test_corrected_ranges_are_the_extremes_of_what_the_rounded_model_gives(layer, carried_out):
    wrapped = rounded(carried_out["ptq-ranges"])
    found = arriving(wrapped, layer)
    assert found.min() > 1  # zero is in the range nevertheless
    np.testing.assert_allclose(ends(wrapped, layer), (0.0, found.max()), rtol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
def test_corrected_ranges_are_chosen_by_the_recipes_own_method(layer, carried_out):
    wrapped = rounded(carried_out["mse"])
    found = arriving(wrapped, layer)
    wanted = ranges.chosen(lambda: [("x", found)], "mse")["x"]
    np.testing.assert_allclose(ends(wrapped, layer), wanted, rtol=1e-6)


def test_a_layer_that_is_called_twice_has_a_range_for_both_calls_and_stays_as_it_was():
    numbers = keras.Input((4,), name="numbers")
    shared = keras.layers.Dense(4, name="shared")
    grown = keras.layers.Add(name="grown")([shared(numbers), shared(numbers)])
    model = keras.Model(numbers, keras.layers.Dense(2, name="scores")(shared(grown)))
    shared.set_weights([np.diag([1.0, 1.5, -2.0, 0.5]), np.zeros(4)])
    wrapped = qat.wrap(model, keep_zeros=False, float_outputs=True)
    rows = {"numbers": np.array([[1, 2, 3, 0], [4, 0, 1, 1]], np.float32)}
    quantizer = wrapped.get_layer("quant_shared")._output_quantizers[0]
    qat.calibrate_in_turn(wrapped, rows)
    # -6 to 4 at first, twice that in the sums, and up to 24 when those are read.
    np.testing.assert_allclose(ends(wrapped, "grown"), (-12, 8), rtol=0.02)
    np.testing.assert_allclose(ends(wrapped, "shared"), (-6, 24), rtol=0.02)
    assert wrapped.get_layer("quant_shared")._output_quantizers[0] is quantizer


def error(scores):
    wanted = build().serving(HISTORIES).numpy()
    return np.abs(scores - wanted).mean() / wanted.std()


def test_an_int8_file_with_corrected_ranges_is_nearer_to_the_float_scores(carried_out, tmp_path):
    errors = {}
    for name in ("float-ranges", "ptq-ranges"):
        data = tflite.convert(
            rounded(carried_out[name]), "tflite-int8-f32scores", length=LENGTH, calibration=HISTORIES
        )
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(data)
        errors[name] = error(host.run("litert", path, {"history": HISTORIES}, deadline_s=60))
    assert errors["ptq-ranges"] < 0.2 < 0.5 < errors["float-ranges"]


@pytest.fixture(scope="module")
def exported():
    return onnx.export(build().serving, length=LENGTH)


def test_ranges_of_an_onnx_file_are_measured_on_what_is_rounded_before(exported):
    graph = onnx_graph.parse(exported)
    plain = onnx_quantize.measured_ranges(graph, HISTORIES)
    in_turn = onnx_quantize.ranges_in_turn(graph, HISTORIES)
    assert list(in_turn) == list(plain)
    assert len(in_turn) == 3
    for name, (low, high) in in_turn.items():
        others = {other: ends for other, ends in in_turn.items() if other != name}
        [(_, values)] = collected(onnx_quantize.qdq(graph, others), name)
        assert (low, high) == (min(values.min(), 0), max(values.max(), 0))
    grown = [in_turn[name][1] / plain[name][1] for name in in_turn]
    assert grown[0] < 1.01
    assert min(grown[1:]) > 1.3


def collected(graph, name):
    return [(name, np.concatenate([values for _, values in onnx_quantize._values(graph, [name], HISTORIES)]))]


def test_a_qdq_file_with_corrected_ranges_is_nearer_to_the_float_scores(exported, tmp_path):
    errors = []
    for corrects in (False, True):
        path = tmp_path / f"{corrects}.onnx"
        path.write_bytes(onnx.quantized(exported, "onnx-qdq", HISTORIES, range_correction=corrects))
        errors.append(error(host.run("onnxruntime", path, {"history": HISTORIES}, deadline_s=60)))
    assert errors[1] < 0.2 < 0.5 < errors[0]


def test_layers_that_stay_float_have_no_range_to_correct(exported):
    graph = onnx_graph.parse(exported)
    assert len(onnx_quantize.ranges_in_turn(graph, HISTORIES, float_layers=("second",))) == 2
