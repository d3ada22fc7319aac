"""The host's engines: equal answers, and a plain sentence when a model breaks the contract or the engine."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack import proc
from edgepack.errors import ConvertError, LimitError, MeasureError, ToolError
from edgepack.runtimes import host, worker

ITEMS, LENGTH = 40, 6
TABLE = np.random.default_rng(3).normal(size=(ITEMS + 1, 8)).astype(np.float32)
HISTORIES = np.random.default_rng(4).integers(0, ITEMS + 1, (16, LENGTH)).astype(np.int32)
EXPECTED = TABLE[HISTORIES].mean(axis=1) @ TABLE.T


def mean_pool_onnx(path, *, input_name="history", input_kind=TensorProto.INT32):
    """Write a recommender whose scores are the mean of the history's vectors times the table."""
    nodes = [
        helper.make_node("Gather", ["table", input_name], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["user"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["user", "table"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_pool",
        [helper.make_tensor_value_info(input_name, input_kind, [1, LENGTH])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, ITEMS + 1])],
        [numpy_helper.from_array(TABLE, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    return mean_pool_onnx(tmp_path_factory.mktemp("host") / "model.onnx")


@pytest.fixture(scope="module")
def tflite_file(tmp_path_factory):
    from edgepack.convert import tflite
    from edgepack.keras2 import keras

    history = keras.Input((LENGTH,), dtype="int32", name="history")
    rows = keras.layers.Embedding(ITEMS + 1, 8, weights=[TABLE])(history)
    user = keras.layers.GlobalAveragePooling1D()(rows)
    scores = keras.layers.Dense(ITEMS + 1, use_bias=False, name="scores", weights=[TABLE.T])(user)
    path = tmp_path_factory.mktemp("host") / "model.tflite"
    path.write_bytes(
        tflite.convert(keras.Model(history, scores), "tflite-float32", length=LENGTH, calibration=HISTORIES)
    )
    return path


def run(engine, artifact, histories=HISTORIES, name="history", deadline_s=60):
    return host.run(engine, artifact, {name: histories}, deadline_s=deadline_s)


def test_onnxruntime_gives_one_row_of_scores_per_history(onnx_file):
    scores = run("onnxruntime", onnx_file)
    assert scores.shape == (16, ITEMS + 1) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, EXPECTED, atol=1e-5)


@pytest.mark.parametrize("engine", ["litert", "tflite-runtime"])
def test_tflite_engines_agree_with_the_model(engine, tflite_file):
    np.testing.assert_allclose(run(engine, tflite_file), EXPECTED, atol=1e-5)


def test_a_single_input_is_fed_whatever_it_is_called(tmp_path):
    artifact = mean_pool_onnx(tmp_path / "m.onnx", input_name="input_ids")
    np.testing.assert_allclose(run("onnxruntime", artifact), EXPECTED, atol=1e-5)


def test_signature_is_read_by_the_engine_of_the_suffix(onnx_file, tflite_file):
    expected = host.Signature(
        (host.Tensor("history", "int32", (1, LENGTH)),),
        (host.Tensor("scores", "float32", (1, ITEMS + 1)),),
    )
    assert host.signature(onnx_file) == expected
    found = host.signature(tflite_file)
    assert found.inputs == expected.inputs and found.outputs[0][1:] == expected.outputs[0][1:]


def test_a_history_of_another_length_is_told_with_both_shapes(onnx_file):
    with pytest.raises(ConvertError, match=r"int32 \[1, 6\] where `history` int32 \[1, 7\] is fed"):
        run("onnxruntime", onnx_file, np.zeros((2, 7), np.int32))


def test_an_int64_input_breaks_the_contract(tmp_path):
    artifact = mean_pool_onnx(tmp_path / "m.onnx", input_kind=TensorProto.INT64)
    with pytest.raises(ConvertError, match="int64"):
        run("onnxruntime", artifact)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", ["batch", 41]), ("float32", [1, "items"]), ("int8", [1, 41]), ("float32", [1, 1, 41])],
)
def test_scores_of_another_type_or_an_open_shape_break_the_contract(dtype, shape):
    found = {
        "inputs": [{"name": "history", "dtype": "int32", "shape": [1, LENGTH]}],
        "outputs": [{"name": "scores", "dtype": dtype, "shape": shape}],
    }
    assert worker.mismatch(found, {"history": (16, LENGTH)}) == f"its outputs are `scores` {dtype} {shape}"


@pytest.mark.parametrize(
    ("engine", "suffix"), [("litert", "tflite"), ("tflite-runtime", "tflite"), ("onnxruntime", "onnx")]
)
def test_a_file_that_is_no_model_gets_one_sentence_with_the_engines_words(engine, suffix, tmp_path):
    artifact = tmp_path / f"noise.{suffix}"
    artifact.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(200)))
    with pytest.raises(MeasureError) as caught:
        run(engine, artifact)
    text = str(caught.value)
    assert f"noise.{suffix} in {engine}: the runtime" in text and "\n" not in text


def test_an_operator_that_the_engine_lacks_is_named(onnx_file, tmp_path):
    model = onnx.load(onnx_file)
    model.graph.node[1].op_type = "NoSuchOperator"
    (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(MeasureError, match="NoSuchOperator"):
        run("onnxruntime", tmp_path / "odd.onnx")


def test_an_engine_that_dies_is_told_by_its_signal(onnx_file, monkeypatch):
    monkeypatch.setattr(proc, "run", lambda *_, **__: proc.Completed(-11, b"", "loading", 0.1))
    with pytest.raises(MeasureError, match=r"died with SIGSEGV \(last words: loading\)"):
        run("onnxruntime", onnx_file)


def test_a_missing_engine_and_a_missing_file_are_told_apart(onnx_file, tmp_path, monkeypatch):
    with pytest.raises(MeasureError, match="is not a file"):
        run("onnxruntime", tmp_path / "nothing.onnx")
    monkeypatch.setitem(host.PACKAGES, "onnxruntime", "no_such_package")
    with pytest.raises(ToolError, match="onnxruntime: is not installed"):
        run("onnxruntime", onnx_file)


def test_the_deadline_holds(onnx_file):
    with pytest.raises(LimitError):
        run("onnxruntime", onnx_file, deadline_s=0.05)
