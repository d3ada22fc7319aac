"""Quantization after training with ranges of edgepack's own: what was chosen must stand in the file."""

import numpy as np
import pytest
from edgepack.models import sasrec

from edgepack import ranges
from edgepack.compress import steps
from edgepack.compress.recipes import RECIPES
from edgepack.compress.weights import save_weights
from edgepack.convert import flatbuffer, onnx, onnx_graph, onnx_quantize, tflite
from edgepack.errors import ConvertError
from edgepack.keras2 import deterministic, keras
from edgepack.runtimes import host

ITEMS, LENGTH, WIDTH = 120, 10, 16
RNG = np.random.default_rng(2)
HISTORIES = RNG.integers(1, ITEMS + 1, (32, LENGTH)).astype(np.int32)
HISTORIES[:8, :5] = 0


def build():
    """A SASRec whose weights are spread as training spreads them."""
    deterministic(3)
    graphs = sasrec.build(ITEMS, LENGTH, width=WIDTH, ffn_width=24)
    rng = np.random.default_rng(5)
    for layer in graphs.training.layers:
        layer.set_weights([w + rng.normal(0, 0.3, w.shape) for w in layer.get_weights()])
    return graphs


@pytest.fixture(scope="module")
def float_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "weights.npz"
    save_weights(build().training, path)
    return path


def carried_out(recipe, float_weights, folder):
    steps.compress(
        build, float_weights, recipe, calibration=HISTORIES, steps_per_epoch=1, finetune=None, work=folder
    )
    return folder


def seen_in(layer, float_weights, folder):
    serving = steps.restore(
        build, carried_out(RECIPES["float"], float_weights, folder / "float"), quantized=False
    )
    return keras.Model(serving.inputs, serving.get_layer(layer).output)(HISTORIES).numpy()


def activation_scale(data, layer):
    """Return scale and zero point of the int8 tensor that holds a layer's result."""
    model = flatbuffer.read(data)
    found = [
        tensor.quantization
        for tensor in model.subgraphs[0].tensors
        if f"quant_{layer}/".encode() in tensor.name and tensor.quantization is not None
    ]
    return {(float(q.scale[0]), int(q.zeroPoint[0])) for q in found if q.scale is not None}


def test_the_chosen_ranges_stand_in_the_tflite_file(float_weights, tmp_path):
    (tmp_path / "float").mkdir()
    folder = carried_out(RECIPES["ptq-percentile"], float_weights, tmp_path)
    serving = steps.restore(build, folder, quantized=True)
    data = tflite.convert(serving, "tflite-int8", length=LENGTH, calibration=HISTORIES)
    values = seen_in("block0_ffn_add", float_weights, tmp_path)
    low, high = ranges.chosen(lambda: [("x", values)], "percentile")["x"]
    assert low < 0 < high
    assert high - low < values.max() - values.min()
    scales = [scale for scale, _ in activation_scale(data, "block0_ffn_add")]
    assert np.isclose(scales, (high - low) / 255, rtol=1e-4).any()
    assert flatbuffer.is_all_integer(data)


@pytest.mark.parametrize("method", ["percentile", "mse", "entropy"])
def test_the_chosen_ranges_stand_in_the_onnx_file(method, float_weights, tmp_path):
    folder = carried_out(RECIPES[f"ptq-{method}"], float_weights, tmp_path)
    exported = onnx.export(steps.restore(build, folder, quantized=False), length=LENGTH)
    graph = onnx_graph.parse(exported)
    wide = onnx_quantize.measured_ranges(graph, HISTORIES)
    chosen = onnx_quantize.measured_ranges(graph, HISTORIES, method)
    assert set(chosen) == set(wide)
    assert all(wide[name][0] <= low <= 0 <= high <= wide[name][1] for name, (low, high) in chosen.items())
    assert method == "mse" or chosen != wide
    stored = onnx_graph.parse(onnx.quantized(exported, "onnx-qdq", HISTORIES, method=method)).weights
    scales = [float(array) for array in stored.values() if array.size == 1 and array.dtype == np.float32]
    for low, high in chosen.values():
        assert np.isclose(scales, (high - low) / 255, rtol=1e-6).any()


@pytest.fixture(scope="module")
def ptq(float_weights, tmp_path_factory):
    return carried_out(RECIPES["ptq"], float_weights, tmp_path_factory.mktemp("ptq"))


@pytest.fixture(scope="module")
def ptq_bias(float_weights, tmp_path_factory):
    return carried_out(RECIPES["ptq-equalize-bias"], float_weights, tmp_path_factory.mktemp("bias"))


def mixed(folder, layers, format="tflite-int8"):
    serving = steps.restore(build, folder, quantized=True, float_layers=layers)
    return tflite.convert(serving, format, length=LENGTH, calibration=HISTORIES, float_layers=layers)


def matrices(data):
    constants = flatbuffer.constants(data)
    return {c.name: c.values for c in constants if c.name.endswith(("/table", "/weights"))}


def test_chosen_layers_stay_float_in_an_int8_file(ptq_bias, tmp_path):
    folder, layers = ptq_bias, ("block0_ffn_in", "block1_output")
    data = mixed(folder, layers, "tflite-int8-f32scores")
    found = matrices(data)
    plain = steps.restore(build, folder, quantized=False)
    for layer in layers:
        np.testing.assert_array_equal(found[f"{layer}/weights"], plain.get_layer(layer).kernel.numpy().T)
    rest = [name for name in found if name.split("/")[0] not in layers]
    assert len(rest) == 7
    assert {found[name].dtype for name in rest} == {np.dtype(np.int8)}
    path = tmp_path / "mixed.tflite"
    path.write_bytes(data)
    wanted = plain(HISTORIES).numpy()
    for engine in ("litert", "tflite-runtime"):
        scores = host.run(engine, path, {"history": HISTORIES}, deadline_s=60)
        assert np.corrcoef(scores.ravel(), wanted.ravel())[0, 1] > 0.99


def test_a_float_table_is_stored_once_too(ptq):
    found = matrices(mixed(ptq, ("item_embedding", "scores"), "tflite-int8-f32scores"))
    tables = [name for name, values in found.items() if values.size == (ITEMS + 1) * WIDTH]
    assert len(tables) == 1
    assert found[tables[0]].dtype == np.float32


def test_a_layer_that_is_not_there_is_refused(ptq):
    with pytest.raises(ConvertError, match=r"(?s)block0_ffn_inn.*Did you mean"):
        mixed(ptq, ("block0_ffn_inn",))


def test_chosen_layers_stay_float_in_a_quantized_onnx_file(ptq):
    plain = steps.restore(build, ptq, quantized=False)
    exported = onnx.export(plain, length=LENGTH)
    kept = ("block0_ffn_in", "block1_ffn_out")
    for format in ("onnx-qdq", "onnx-dynamic"):
        stored = onnx_graph.parse(onnx.quantized(exported, format, HISTORIES, float_layers=kept)).weights
        matrices = {name: a for name, a in stored.items() if name.endswith(("/kernel", "/embeddings"))}
        assert {name.split("/")[0] for name, a in matrices.items() if a.dtype == np.float32} == {*kept}
        assert len(matrices) == 9
        np.testing.assert_array_equal(
            stored["block0_ffn_in/kernel"], plain.get_layer("block0_ffn_in").kernel.numpy()
        )


def test_corrected_biases_are_in_the_int8_model_alone(ptq_bias):
    corrections = dict(np.load(ptq_bias / "bias_corrections.npz"))
    parts = ("query", "output", "ffn_in", "ffn_out")
    assert set(corrections) == {f"block{block}_{part}" for block in (0, 1) for part in parts}
    plain = steps.restore(build, ptq_bias, quantized=False).get_layer("block0_ffn_out").bias.numpy()
    rounded = steps.restore(build, ptq_bias, quantized=True).get_layer("quant_block0_ffn_out").layer.bias
    np.testing.assert_allclose(rounded.numpy(), plain + corrections["block0_ffn_out"], rtol=1e-6)


def test_ranges_are_those_of_the_corrected_biases_which_stay_out_of_the_weights(ptq, float_weights, tmp_path):
    folder = carried_out(RECIPES["ptq-bias-ranges"], float_weights, tmp_path)
    corrections = dict(np.load(folder / "bias_corrections.npz"))
    before, plain = (steps.restore(build, work, quantized=False) for work in (ptq, folder))
    bias = before.get_layer("block0_ffn_out").bias.numpy()
    np.testing.assert_array_equal(plain.get_layer("block0_ffn_out").bias.numpy(), bias)
    rounded = steps.restore(build, folder, quantized=True)
    wrapper = rounded.get_layer("quant_block0_ffn_out")
    weight, quantizer, ranges_of_weight = wrapper._weight_vars[0]
    inputs = keras.Model(rounded.inputs, wrapper.input)(HISTORIES)
    reach = inputs @ quantizer(weight, False, weights=ranges_of_weight) + bias + corrections["block0_ffn_out"]
    ends = [float(wrapper._output_quantizer_vars[end]) for end in ("min_var", "max_var")]
    np.testing.assert_allclose(ends, (reach.numpy().min(), reach.numpy().max()), rtol=1e-5)


def test_an_equalized_model_has_the_scores_of_the_float_one(ptq, ptq_bias):
    before, after = (steps.restore(build, folder, quantized=False) for folder in (ptq, ptq_bias))
    wanted = before(HISTORIES).numpy()
    np.testing.assert_allclose(after(HISTORIES).numpy(), wanted, atol=2e-5 * np.abs(wanted).max())
    kernels = [model.get_layer("block0_ffn_out").kernel.numpy() for model in (before, after)]
    assert not np.allclose(*kernels)
