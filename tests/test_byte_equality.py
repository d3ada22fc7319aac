"""All-integer TFLite files: the host and every emulated aarch64 core give the same bytes."""

import numpy as np
import pytest
from edgepack.models import folding, mf, neumf, sasrec

from edgepack.compress import qat
from edgepack.convert import flatbuffer, tflite
from edgepack.convert.portable import portable
from edgepack.keras2 import deterministic, keras
from edgepack.profiles import load_profiles
from edgepack.runtimes import arm, host
from edgepack.tools import arm as tools

ITEMS, LENGTH = 300, 20
CORES = ("android-arm64-low", "android-arm64-mid", "android-arm64-high")
PROFILES = load_profiles()
DEADLINE_S = 60

FAMILIES = {
    "sasrec": (sasrec, {"width": 32, "ffn_width": 32}),
    "sasrec of two heads": (sasrec, {"width": 32, "ffn_width": 32, "heads": 2}),
    "sasrec as it was trained": (sasrec, {"width": 32, "ffn_width": 32}),
    "mf": (mf, {"width": 32}),
    "neumf": (neumf, {"width": 16, "mlp_in": 16, "mlp_out": 8}),
}


def missing_tool() -> str:
    return next((f"{t.name} is missing: {t.remedy}" for t in tools.status() if t.path is None), "")


emulated = pytest.mark.skipif(bool(missing_tool()), reason=missing_tool())


def histories(rows):
    rng = np.random.default_rng(3)
    drawn = rng.integers(1, ITEMS + 1, (rows, LENGTH)).astype(np.int32)
    for row, padding in enumerate(rng.integers(0, LENGTH + 1, rows)):
        drawn[row, :padding] = 0
    return {"history": drawn}


def int8_file(name, format="tflite-int8"):
    family, hyper = FAMILIES[name]
    deterministic(5)
    graphs = family.build(ITEMS, LENGTH, **hyper)
    if "trained" not in name:
        graphs = folding.shipped(graphs)
    table = graphs.serving.get_layer(graphs.table)
    # Untrained tables give nearly equal scores; spread them as training does.
    table.set_weights([np.random.default_rng(1).normal(0, 0.5, table.get_weights()[0].shape)])
    if graphs.tied:
        graphs.serving.get_layer(graphs.tied).set_weights([table.get_weights()[0].T])
    ready = qat.wrap_tables(graphs.serving, (graphs.tied,) if graphs.tied else ())
    return tflite.convert(ready, format, length=LENGTH, calibration=histories(32)["history"])


def host_and_cores(data, folder, cores=CORES):
    path, inputs = folder / "model.tflite", histories(100)
    path.write_bytes(data)
    on_host = host.run("litert", path, inputs, deadline_s=DEADLINE_S)
    return on_host, {
        core: arm.run(path, inputs, PROFILES[core].emulation, deadline_s=DEADLINE_S) for core in cores
    }


@emulated
@pytest.mark.parametrize("name", list(FAMILIES))
def test_an_all_integer_file_gives_the_same_bytes_on_the_host_and_on_every_core(name, tmp_path):
    data = int8_file(name)
    assert flatbuffer.is_all_integer(data)
    on_host, on_cores = host_and_cores(data, tmp_path)
    assert len(np.unique(on_host)) > 50, "scores that hardly differ prove nothing"
    assert [core for core, scores in on_cores.items() if scores.tobytes() != on_host.tobytes()] == []


@emulated
@pytest.mark.parametrize("name", ["sasrec", "mf"])
def test_float_scores_over_an_integer_body_differ_by_rounding_only(name, tmp_path):
    on_host, on_cores = host_and_cores(int8_file(name, "tflite-int8-f32scores"), tmp_path)
    apart = {core: float(np.abs(scores - on_host).max()) for core, scores in on_cores.items()}
    assert max(apart.values()) < 1e-6 * np.ptp(on_host), apart


def test_products_that_float32_cannot_add_up_exactly_make_no_integer_file():
    model = flatbuffer.read(int8_file("sasrec"))
    graph = model.subgraphs[0]
    products = [o for o in graph.operators if flatbuffer.operator_name(model, o) == "BATCH_MATMUL"]
    assert len(products) == 4
    assert flatbuffer.is_all_integer(flatbuffer.write(model))
    left = graph.tensors[products[0].inputs[0]]
    left.shape = np.array([*left.shape[:-1], 2_000], np.int32)
    assert not flatbuffer.is_all_integer(flatbuffer.write(model))


def test_no_mean_rounds_near_the_middle_of_two_steps():
    model = flatbuffer.read(int8_file("sasrec"))
    graph = model.subgraphs[0]
    means = [o for o in graph.operators if flatbuffer.operator_name(model, o) == "MEAN"]
    assert len(means) == 6
    for mean in means:
        given, result = (graph.tensors[int(i)].quantization for i in (mean.inputs[0], mean.outputs[0]))
        low, high = (32 * (end - int(given.zeroPoint[0])) for end in (-128, 127))
        steps = np.arange(low, high + 1) * np.float64(given.scale[0]) / 32 / np.float64(result.scale[0])
        possible = steps[np.abs(steps + result.zeroPoint[0]) < 128]
        assert np.abs(possible % 1 - 0.5).min() > 0.0002


@emulated
def test_without_the_rewriting_an_attention_file_differs_between_host_and_core(monkeypatch, tmp_path):
    monkeypatch.setattr(tflite, "portable", lambda model: model)
    on_host, on_cores = host_and_cores(int8_file("sasrec"), tmp_path, CORES[:1])
    assert on_cores[CORES[0]].tobytes() != on_host.tobytes()


def test_the_rewriting_changes_the_scores_by_little_in_both_runtimes(tmp_path, monkeypatch):
    rewritten = int8_file("sasrec")
    monkeypatch.setattr(tflite, "portable", lambda model: model)
    plain, scores = int8_file("sasrec"), {}
    for name, data in (("plain", plain), ("rewritten", rewritten)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(data)
        for engine in ("litert", "tflite-runtime"):
            scores[name, engine] = host.run(engine, path, histories(100), deadline_s=DEADLINE_S).ravel()
    assert np.corrcoef(list(scores.values())).min() > 0.99


def test_a_file_without_integer_matmul_or_softmax_comes_back_as_it_is():
    deterministic(5)
    ids = keras.Input((LENGTH,), dtype="int32", name="history")
    table = keras.layers.Embedding(ITEMS + 1, 8)(ids)
    scores = keras.layers.Dense(ITEMS + 1)(keras.layers.Flatten()(table))
    model = keras.Model(ids, scores, name="mlp")
    for format in ("tflite-float32", "tflite-int8"):
        data = tflite.convert(model, format, length=LENGTH, calibration=histories(8)["history"])
        assert portable(data) == data
