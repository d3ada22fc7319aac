"""A user's own ONNX: NeuMF goes through to int8 TFLite and web ONNX, a wrongly converted SASRec does not."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgepack.convert import from_onnx, parity
from edgepack.errors import ConvertError
from edgepack.runtimes import host

ITEMS, LENGTH = 300, 12
TABLE = np.random.default_rng(3).normal(size=(ITEMS + 1, 8)).astype(np.float32)


def histories():
    rng = np.random.default_rng(7)
    rows = rng.integers(1, ITEMS + 1, (32, LENGTH)).astype(np.int32)
    rows[:8, :7] = 0
    return rows


def exported_by_a_user(family, folder, **hyper):
    """Write a model as tf2onnx does by default: open batch, its own names."""
    import tf2onnx

    from edgepack.keras2 import deterministic, tf

    deterministic(5)
    graphs = family.build(ITEMS, LENGTH, **hyper)
    for layer in graphs.serving.layers:
        if layer.name.endswith("_embedding"):
            shape = layer.get_weights()[0].shape
            layer.set_weights([np.random.default_rng(6).normal(0, 0.5, shape)])
    if graphs.tied:
        table = graphs.serving.get_layer(graphs.table).get_weights()[0]
        graphs.serving.get_layer(graphs.tied).set_weights([table.T])
    spec = [tf.TensorSpec((None, LENGTH), tf.int32, name="clicks")]
    model, _ = tf2onnx.convert.from_keras(graphs.serving, input_signature=spec, opset=17)
    path = folder / "user.onnx"
    path.write_bytes(model.SerializeToString())
    return path, np.asarray(graphs.serving(histories()))


def small_onnx(path, *, inputs=None, output=None, opset=17, index_kind=TensorProto.INT32):
    inputs = inputs or [helper.make_tensor_value_info("ids", index_kind, ["batch", LENGTH])]
    output = output or helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", ITEMS + 1])
    nodes = [
        helper.make_node("Gather", ["table", inputs[0].name], ["rows"]),
        helper.make_node("ReduceMean", ["rows"], ["user"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["user", "table"], [output.name], transB=1),
    ]
    graph = helper.make_graph(nodes, "user", inputs, [output], [numpy_helper.from_array(TABLE, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def scores(engine, data, suffix, folder):
    artifact = folder / f"model.{suffix}"
    artifact.write_bytes(data)
    return host.run(engine, artifact, {"history": histories()}, deadline_s=60)


def test_a_neumf_comes_out_as_int8_tflite_and_as_web_onnx(tmp_path):
    from edgepack.models import neumf

    path, keras_scores = exported_by_a_user(neumf, tmp_path)
    model = from_onnx.take_in(path, item_count=ITEMS, length=LENGTH)
    reference = from_onnx.reference(model, histories())
    assert parity.check(keras_scores, reference, "onnx-float32").passed
    for format, engines in (
        ("tflite-float32", ("litert", "tflite-runtime")),
        ("tflite-int8", ("litert", "tflite-runtime")),
        ("onnx-qdq", ("onnxruntime",)),
        ("ort-dynamic", ("onnxruntime",)),
    ):
        data = from_onnx.convert(model, format, calibration=histories(), folder=tmp_path / "work")
        for engine in engines:
            found = parity.check(reference, scores(engine, data, format.split("-")[0], tmp_path), format)
            assert found.passed, (format, engine, found)


def test_a_sasrec_that_onnx2tf_gets_wrong_without_a_word_is_refused_by_the_gate(tmp_path):
    from edgepack.models import sasrec

    path, _ = exported_by_a_user(sasrec, tmp_path, width=32, ffn_width=32)
    model = from_onnx.take_in(path)
    reference = from_onnx.reference(model, histories())
    # With the batch left open, as users export it, onnx2tf ends with status 0.
    as_exported = model._replace(data=path.read_bytes())
    data = from_onnx.convert(as_exported, "tflite-float32", calibration=histories(), folder=tmp_path / "work")
    found = parity.check(reference, scores("litert", data, "tflite", tmp_path), "tflite-float32")
    assert not found.passed and found.reason


def test_an_int64_input_with_other_names_is_brought_to_the_contract(tmp_path):
    model = from_onnx.take_in(small_onnx(tmp_path / "torch.onnx", index_kind=TensorProto.INT64))
    assert (model.item_count, model.length) == (ITEMS, LENGTH)
    expected = TABLE[histories()].mean(axis=1) @ TABLE.T
    np.testing.assert_allclose(from_onnx.reference(model, histories()), expected, atol=1e-5)
    data = from_onnx.convert(model, "onnx-qdq", calibration=histories(), folder=tmp_path)
    assert parity.check(expected, scores("onnxruntime", data, "onnx", tmp_path), "onnx-qdq").passed


def test_sizes_that_the_file_leaves_open_come_from_the_log(tmp_path):
    ids = helper.make_tensor_value_info("ids", TensorProto.INT32, ["batch", "steps"])
    path = small_onnx(tmp_path / "open.onnx", inputs=[ids])
    with pytest.raises(ConvertError, match="it leaves its length open"):
        from_onnx.take_in(path)
    assert from_onnx.take_in(path, length=9).length == 9


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize(
    ("inputs", "output", "words"),
    [
        (
            [value("item", TensorProto.INT32, [1, LENGTH]), value("user", TensorProto.INT32, [1, 1])],
            None,
            "inputs `item` int32 [1, 12], `user` int32 [1, 1]",
        ),
        ([value("x", TensorProto.FLOAT, [1, LENGTH])], None, "inputs `x` float [1, 12]"),
        ([value("x", TensorProto.INT32, [64, LENGTH])], None, "inputs `x` int32 [64, 12]"),
        (None, value("y", TensorProto.FLOAT16, [1, ITEMS + 1]), "outputs `y` float16"),
    ],
)
def test_a_wrong_signature_is_told_with_what_is_taken(inputs, output, words, tmp_path):
    with pytest.raises(ConvertError) as caught:
        from_onnx.take_in(small_onnx(tmp_path / "wrong.onnx", inputs=inputs, output=output))
    assert words in str(caught.value) and "one int32 or int64 input [1, length]" in str(caught.value)


def test_another_catalogue_or_length_than_the_logs_is_refused(tmp_path):
    path = small_onnx(tmp_path / "m.onnx")
    with pytest.raises(ConvertError, match=r"its items \+ 1 is 301; 401 is needed"):
        from_onnx.take_in(path, item_count=400)
    with pytest.raises(ConvertError, match="its length is 12; 50 is needed"):
        from_onnx.take_in(path, length=50)


def test_files_that_are_not_usable_onnx_are_refused(tmp_path):
    (tmp_path / "noise.onnx").write_bytes(b"not a model at all")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("noise.onnx", "empty.onnx", "missing.onnx"):
        with pytest.raises(ConvertError, match=name):
            from_onnx.take_in(tmp_path / name)
    with pytest.raises(ConvertError, match="its operator set is 11"):
        from_onnx.take_in(small_onnx(tmp_path / "old.onnx", opset=11))
    model = onnx.load(small_onnx(tmp_path / "m.onnx"))
    model.graph.node[0].domain = "com.example"
    (tmp_path / "own.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ConvertError, match=r"uses the operator com\.example\.Gather"):
        from_onnx.take_in(tmp_path / "own.onnx")
