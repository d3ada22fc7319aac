"""Equalization changes no score of the float model, and a corrected bias takes the mean error away."""

import numpy as np
import pytest
from edgepack.models import sasrec

from edgepack.compress import equalize, qat
from edgepack.convert import onnx, onnx_graph, onnx_quantize
from edgepack.keras2 import deterministic, keras

ITEMS, LENGTH = 90, 9
HISTORIES = np.random.default_rng(1).integers(1, ITEMS + 1, (24, LENGTH)).astype(np.int32)
HISTORIES[:6, :4] = 0


def spread(model, seed):
    """Give the channels of every layer scales of their own, a few of them nothing at all."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights(
            [
                (w + rng.normal(0, 0.2, w.shape)) * np.exp(rng.normal(0, 1, w.shape[-1:]))
                for w in layer.get_weights()
            ]
        )
    return model


def random_sasrec(seed, heads=1):
    deterministic(seed)
    graphs = sasrec.build(ITEMS, LENGTH, width=16, ffn_width=20, heads=heads)
    return spread(graphs.serving, seed)


@pytest.mark.parametrize(("seed", "heads"), [(1, 1), (2, 2), (3, 4)])
def test_an_equalized_model_gives_the_scores_it_gave(seed, heads):
    model = random_sasrec(seed, heads)
    dead = model.get_layer("block0_ffn_in")
    dead.kernel.assign(dead.kernel * (np.arange(20) > 2))
    before = model(HISTORIES).numpy()
    kernels = {layer.name: layer.get_weights() for layer in model.layers}
    scaled = equalize.equalize(model, ("scores",))
    np.testing.assert_allclose(model(HISTORIES).numpy(), before, atol=2e-5 * np.abs(before).max())
    assert scaled == [
        f"block{block}_{part}"
        for block in (0, 1)
        for part in ("attention_norm", "value", "ffn_norm", "ffn_in")
    ]
    for name in scaled:
        assert not np.allclose(model.get_layer(name).get_weights()[0], kernels[name][0])


def test_the_two_sides_of_a_pair_reach_equally_far_afterwards():
    model = random_sasrec(4)
    equalize.equalize(model, ("scores",))
    first = np.abs(model.get_layer("block0_ffn_in").kernel.numpy()).max(axis=0)
    # Its own inputs were scaled before, by what its rows were: the second side is what the pair left.
    second = np.abs(model.get_layer("block0_ffn_out").kernel.numpy()).max(axis=1)
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_a_layer_whose_channels_go_elsewhere_is_left_alone():
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(9, 4, name="rows")(ids)
    shared = keras.layers.Dense(4, name="read_twice")(x)
    bent = keras.layers.Dense(4, activation="tanh", name="bent")(x)
    sums = keras.layers.Add()([shared, keras.layers.Dense(4, name="last")(shared)])
    out = keras.layers.Dense(3, name="scores")(keras.layers.Add()([sums, keras.layers.Dense(4)(bent)]))
    assert equalize.pairs(keras.Model(ids, out)) == []


def test_a_tied_layer_is_left_alone():
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Dense(5, activation="relu", name="up")(keras.layers.Embedding(9, 4)(ids))
    model = keras.Model(ids, keras.layers.Dense(9, name="scores")(x))
    assert [pair.producer.name for pair in equalize.pairs(model)] == ["up"]
    assert equalize.pairs(model, ("scores",)) == []


def test_a_corrected_bias_takes_the_mean_rounding_error_away():
    model = random_sasrec(6)
    wrapped = qat.wrap(model, keep_zeros=False, float_outputs=True)
    qat.calibrate(wrapped, model, HISTORIES)
    corrections = equalize.bias_corrections(wrapped, model, HISTORIES)
    assert set(corrections) == {f"block{b}_ffn_{part}" for b in (0, 1) for part in ("in", "out")}
    layer, name = model.get_layer("block0_ffn_out"), "quant_block0_ffn_out"
    inputs = keras.Model(model.inputs, layer.input)(HISTORIES).numpy().reshape(-1, 20)
    kernel, bias = layer.get_weights()
    weight, quantizer, ranges = wrapped.get_layer(name)._weight_vars[0]
    rounded = quantizer(weight, False, weights=ranges).numpy()
    wanted = (inputs @ kernel).mean(0)
    assert np.abs((inputs @ rounded).mean(0) - wanted).max() > 1e-4
    np.testing.assert_allclose(
        (inputs @ rounded).mean(0) + corrections["block0_ffn_out"], wanted, atol=1e-5 * np.abs(wanted).max()
    )
    equalize.add_to_biases(wrapped, corrections)
    np.testing.assert_allclose(
        wrapped.get_layer(name).layer.bias.numpy(), bias + corrections["block0_ffn_out"], rtol=1e-6
    )


def test_the_onnx_file_holds_the_corrected_biases():
    model = random_sasrec(7)
    graph = onnx_graph.parse(onnx.export(model, length=LENGTH))
    corrected = onnx_quantize.corrected(graph, HISTORIES)
    changed = {name for name in corrected.weights if name not in graph.weights}
    assert len(changed) == 4
    layer = model.get_layer("block0_ffn_in")
    kernel, bias = layer.get_weights()
    scale = np.abs(kernel).max(axis=0) / 127
    error = kernel - np.rint(kernel / scale) * scale
    inputs = keras.Model(model.inputs, layer.input)(HISTORIES).numpy().reshape(-1, 16)
    wanted = bias + inputs.mean(0) @ error
    found = [corrected.weights[name] for name in changed if corrected.weights[name].shape == (20,)]
    assert min(np.abs(array - wanted).max() for array in found) < 1e-4 * np.abs(wanted).max()
