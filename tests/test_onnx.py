"""ONNX files: every format ranks as the Keras model does, stores the table once and repeats to the byte."""

import hashlib
import subprocess
import sys

import numpy as np
import onnx
import pytest

from edgepack.convert import onnx as to_onnx
from edgepack.convert import onnx_graph, parity
from edgepack.convert.describe import describe
from edgepack.errors import ConvertError
from edgepack.keras2 import keras
from edgepack.runtimes import host

ITEMS, LENGTH, WIDTH = 1_000, 12, 32

# Runs in processes of their own, too: the same model comes out of it every time.
SOURCE = f"""
import numpy as np
from edgepack.keras2 import deterministic
from edgepack.models import {{family}} as family

def build():
    deterministic(5)
    graphs = family.build({ITEMS}, {LENGTH}, width={WIDTH})
    table = graphs.serving.get_layer(graphs.table)
    # Untrained tables give nearly equal scores; spread them as training does.
    table.set_weights([np.random.default_rng(6).normal(0, 0.5, table.get_weights()[0].shape)])
    if graphs.tied:
        graphs.serving.get_layer(graphs.tied).set_weights([table.get_weights()[0].T])
    return graphs.serving

def histories():
    rng = np.random.default_rng(7)
    rows = rng.integers(1, {ITEMS} + 1, (48, {LENGTH})).astype(np.int32)
    rows[:8, :7] = 0
    rows[0] = 0
    return rows
"""

HASHES = """
import hashlib
from edgepack.convert import onnx
model = onnx.export(build(), length=12)
for format in onnx.FORMATS:
    print(format, hashlib.sha256(onnx.quantized(model, format, histories())).hexdigest())
"""


class Case:
    def __init__(self, family):
        made = {}
        exec(SOURCE.format(family=family), made)  # noqa: S102
        self.histories, serving = made["histories"](), made["build"]()
        self.reference = np.asarray(serving(self.histories))
        exported = to_onnx.export(serving, length=LENGTH)
        self.files = {f: to_onnx.quantized(exported, f, self.histories) for f in to_onnx.FORMATS}


@pytest.fixture(scope="module")
def sasrec():
    return Case("sasrec")


def gate(case, format, folder):
    artifact = folder / f"model.{format.partition('-')[0]}"
    artifact.write_bytes(case.files[format])
    scores = host.run("onnxruntime", artifact, {"history": case.histories}, deadline_s=60)
    return parity.check(case.reference, scores, format), scores


@pytest.mark.parametrize("format", to_onnx.FORMATS)
def test_every_format_passes_the_parity_gate(format, sasrec, tmp_path):
    found, _ = gate(sasrec, format, tmp_path)
    assert found.passed, found


@pytest.mark.parametrize("format", ["onnx-dynamic", "onnx-qdq"])
def test_int8_scores_do_not_tie(format, sasrec, tmp_path):
    _, scores = gate(sasrec, format, tmp_path)
    top = np.sort(scores[:, 1:], axis=1)[:, -10:]
    assert np.mean(np.diff(top, axis=1) == 0) < 0.02


def test_the_tied_table_is_stored_once(sasrec):
    elements = (ITEMS + 1) * WIDTH
    assert describe(sasrec.files["onnx-float32"], "onnx-float32").table_bytes == 4 * elements
    for name, item_bytes in (("float32", 4), ("float16", 2), ("dynamic", 1), ("qdq", 1)):
        data = sasrec.files[f"onnx-{name}"]
        matrices = [a for a in onnx_graph.parse(data).weights.values() if a.size >= elements]
        assert len(matrices) == 1 and len(data) < item_bytes * elements + 120_000
    small = len(sasrec.files["onnx-qdq"]) / len(sasrec.files["onnx-float32"])
    assert small < 0.45  # at a thousand items the graph itself still weighs


def test_the_graph_has_the_contracts_ends_and_batch_one(sasrec, tmp_path):
    (tmp_path / "m.onnx").write_bytes(sasrec.files["onnx-qdq"])
    (tmp_path / "m.ort").write_bytes(sasrec.files["ort-qdq"])
    expected = host.Signature(
        (host.Tensor("history", "int32", (1, LENGTH)),),
        (host.Tensor("scores", "float32", (1, ITEMS + 1)),),
    )
    assert host.signature(tmp_path / "m.onnx") == host.signature(tmp_path / "m.ort") == expected


def test_only_matrix_products_and_look_ups_are_integer(sasrec):
    graph = onnx_graph.parse(sasrec.files["onnx-qdq"])
    by_output = {name: node for node in graph.nodes for name in node.output}
    for node in graph.nodes:
        if node.op_type in ("Softmax", "Add"):
            # Neither the mask nor a residual is a quantized tensor.
            makers = {by_output[name].op_type for name in node.input if name in by_output}
            assert "QuantizeLinear" not in makers
    activations = {graph.weights[n.input[2]].dtype.name for n in graph.nodes if n.op_type == "QuantizeLinear"}
    assert activations == {"uint8"}
    assert graph.weights["item_embedding/embeddings"].dtype == np.int8


def test_every_dequantize_has_a_zero_point(sasrec):
    for format in ("onnx-dynamic", "onnx-qdq"):
        nodes = onnx_graph.parse(sasrec.files[format]).nodes
        assert all(len(n.input) == 3 for n in nodes if n.op_type == "DequantizeLinear")


def test_ort_files_hold_no_layout_of_one_processor(sasrec):
    for format in to_onnx.FORMATS[4:]:
        # The domain is always among the imports; an operator of it would be followed by a colon.
        assert b"nchwc:" not in sasrec.files[format] and b"ReorderInput" not in sasrec.files[format]


def test_facts_name_operators_with_versions_and_zeros_by_keras_name(sasrec):
    facts = describe(sasrec.files["onnx-float32"], "onnx-float32")
    assert "Gather v13 x 1" in facts.ops
    assert facts.zero_share["item_embedding/embeddings"] == 0
    model = onnx.load_model_from_string(sasrec.files["onnx-float32"])
    kernel = next(t for t in model.graph.initializer if t.name == "block0_query/kernel")
    values = onnx.numpy_helper.to_array(kernel).copy()
    values[: WIDTH // 2] = 0
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    pruned = to_onnx.quantized(model.SerializeToString(), "onnx-qdq", sasrec.histories)
    assert describe(pruned, "onnx-qdq").zero_share["block0_query/kernel"] >= 0.5


def test_names_and_order_of_the_source_leave_no_trace(sasrec):
    graph = onnx_graph.parse(sasrec.files["onnx-float32"])
    names = {name: f"other/{i}" for i, name in enumerate(n for node in graph.nodes[:-1] for n in node.output)}
    shuffled = onnx_graph.renamed(graph._replace(nodes=graph.nodes[::-1]), names)
    assert onnx_graph.to_bytes(shuffled) == sasrec.files["onnx-float32"]


def test_equal_weights_and_equal_nodes_are_stored_once(sasrec):
    graph = onnx_graph.parse(sasrec.files["onnx-float32"])
    contents = [(a.dtype, a.shape, a.tobytes()) for a in graph.weights.values()]
    assert len(set(contents)) == len(contents)


def test_two_processes_with_other_hash_seeds_write_the_same_bytes(sasrec):
    code = SOURCE.format(family="sasrec") + HASHES
    argv = [sys.executable, "-c", code]
    done = subprocess.run(
        argv, env={"PATH": "/usr/bin", "PYTHONHASHSEED": "11"}, capture_output=True, check=True
    )
    there = dict(line.split() for line in done.stdout.decode().splitlines())
    assert there == {f: hashlib.sha256(data).hexdigest() for f, data in sasrec.files.items()}


@pytest.mark.parametrize("family", ["neumf", "mf"])
def test_the_other_families_pass_in_int8(family, tmp_path):
    case = Case(family)
    for format in ("onnx-float32", "onnx-dynamic", "onnx-qdq"):
        found, _ = gate(case, format, tmp_path)
        assert found.passed, (format, found)


def test_an_unknown_format_gets_a_suggestion(sasrec):
    with pytest.raises(ConvertError, match="Did you mean 'onnx-qdq'"):
        to_onnx.quantized(sasrec.files["onnx-float32"], "onnx-qqd", sasrec.histories)


def test_bytes_that_are_not_onnx_are_refused():
    with pytest.raises(ConvertError, match="ONNX"):
        onnx_graph.parse(b"\x00\x01 not a model", "model.onnx")


def test_a_models_only_input_is_called_history_whatever_its_author_called_it():
    ids = keras.Input((6,), dtype="int32", name="items")
    pooled = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(41, 8, name="rows")(ids))
    own = keras.Model(ids, keras.layers.Dense(41, name="scores")(pooled), name="own")
    graph = onnx_graph.parse(to_onnx.export(own, length=6))
    assert [value.name for value in graph.inputs] == ["history"]
    assert [value.name for value in graph.outputs] == ["scores"]
