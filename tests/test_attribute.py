"""Attribution by operator: prefixes add up to the whole, the dominant one is named, slow things are told."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edgepack import cli
from edgepack.convert import flatbuffer
from edgepack.convert.operators import operators
from edgepack.convert.prefixes import prefixes
from edgepack.errors import ConfigError, ConvertError, MeasureError
from edgepack.measure import arm, attribute
from edgepack.measure.slow import slow, slower_than_float
from edgepack.measuring import explain_file
from edgepack.profiles import load_profiles
from edgepack.report import html, markdown, text
from edgepack.report import operators as shown
from edgepack.results import Measurement, Number, Operator, OperatorCost
from edgepack.runtimes import arm as arm_runtime
from edgepack.stages.attribution import _core_key, attributed, core_of
from edgepack.tools import arm as tools
from tests.sample_result import attribution, sample_result

MODELS = Path(__file__).parent / "data" / "arm"
INT8, FLOAT32 = MODELS / "int8.tflite", MODELS / "float32.tflite"
PROFILES = load_profiles()
CORES = ("android-arm64-low", "android-arm64-mid", "android-arm64-high")
ROW = {"history": np.arange(1, 11, dtype=np.int32)[None, :]}


def missing_tool():
    return next((f"{t.name} is missing: {t.remedy}" for t in tools.status() if t.path is None), "")


emulated = pytest.mark.skipif(bool(missing_tool()), reason=missing_tool())


def attributed_on(target, model):
    profile = PROFILES[target]
    whole = arm.measure(model, "ab" * 32, profile, ROW)
    return attributed(model, whole, core_of(profile), ROW)


@emulated
@pytest.mark.parametrize("target", CORES)
@pytest.mark.parametrize("model", [INT8, FLOAT32], ids=["int8", "float32"])
def test_counts_of_prefixes_add_up_to_the_whole(target, model):
    found = attributed_on(target, model)
    assert len(found.operators) == len(operators(model.read_bytes()))
    assert found.rest("instructions") == 0
    # Tensors lie elsewhere than in a process of the model alone: some lines more or less.
    assert abs(found.rest("l1d_misses")) <= 64
    assert abs(found.rest("l2_misses")) <= 64
    assert found.failure == ""
    assert found.provenance == "emulated"


@emulated
def test_two_runs_attribute_the_same_to_the_unit():
    assert attributed_on(CORES[0], INT8) == attributed_on(CORES[0], INT8)


@emulated
def test_models_that_do_not_fit_into_one_folder_are_counted_in_several_processes(monkeypatch):
    together = attributed_on(CORES[0], INT8)
    monkeypatch.setattr(arm_runtime, "ROOM_BYTES", 2 * len(INT8.read_bytes()))
    apart = attributed_on(CORES[0], INT8)
    amounts = [[cost.instructions for cost in one.operators] for one in (together, apart)]
    assert amounts[0] == amounts[1]


@emulated
def test_the_dominant_operator_and_those_outside_xnnpack_are_named():
    found = attributed_on(CORES[0], FLOAT32)
    most = max(found.operators, key=lambda cost: cost.instructions)
    assert (most.operator.kind, most.operator.shape) == ("FULLY_CONNECTED", (1, 201))
    assert most.instructions > 0.7 * found.instructions
    assert most.operator.multiplications == 32 * 201
    assert [cost.operator.kind for cost in found.operators if not cost.in_xnnpack] == ["GATHER"]


def test_a_prefix_puts_out_what_the_rest_waits_for():
    data = INT8.read_bytes()
    whole = flatbuffer.read(data).subgraphs[0]
    cut = [flatbuffer.read(prefix).subgraphs[0] for prefix in prefixes(data)]
    assert [len(graph.operators) for graph in cut] == list(range(1, len(whole.operators) + 1))
    assert list(cut[-1].outputs) == list(whole.outputs)
    for count, graph in enumerate(cut, 1):
        made = {int(index) for operator in graph.operators for index in operator.outputs}
        later = {int(index) for operator in whole.operators[count:] for index in operator.inputs}
        assert {int(index) for index in graph.outputs} == made & (later | set(map(int, whole.outputs)))


def test_layers_are_called_as_in_the_model():
    found = [one.layer for one in operators(INT8.read_bytes())]
    assert found == ["embedding", "flatten", "dense", "scores", "scores"]


@pytest.mark.parametrize("read", [operators, lambda data: list(prefixes(data))])
def test_what_is_no_tflite_file_is_refused(read):
    with pytest.raises(ConvertError, match="identifier"):
        read(b"not a model at all")


def test_a_target_without_litert_on_an_emulated_core_is_refused():
    for target in ("android-armv7", "web-wasm-mobile"):
        with pytest.raises(ConfigError, match="cannot be counted one by one"):
            explain_file(INT8, target, lambda *_: None)


def test_a_model_of_too_many_operators_is_refused():
    many = (operator("ADD"),) * 2_001
    with pytest.raises(MeasureError, match="2,001 operators"):
        attribute.attribute(INT8, (), many, measurement(1), core_of(PROFILES[CORES[0]]), ROW)


@emulated
def test_a_model_that_does_not_run_in_parts_says_why(tmp_path):
    model = flatbuffer.read(INT8.read_bytes())
    model.operatorCodes[0].builtinCode = model.operatorCodes[0].deprecatedBuiltinCode = 32  # CUSTOM
    model.operatorCodes[0].customCode = b"Unheard"
    path = tmp_path / "custom.tflite"
    path.write_bytes(flatbuffer.write(model))
    found = attributed(path, measurement(9), core_of(PROFILES[CORES[0]]), ROW)
    assert "Unheard" in found.failure
    assert found.operators == ()
    assert found.instructions == 9


def test_cores_that_differ_in_cryptography_alone_are_counted_once():
    low, mid, pi = (core_of(PROFILES[name]) for name in (*CORES[:2], "raspberry-pi-4"))
    assert mid != pi
    assert _core_key(mid) == _core_key(pi)
    assert _core_key(low) != _core_key(mid)


@emulated
def test_explain_prints_the_table_and_json():
    words = ["explain", str(INT8), "-t", CORES[0]]
    told = CliRunner().invoke(cli.cli, [*words, "--top", "2"], standalone_mode=False).stdout
    assert told.startswith("Cortex-A53 (android-arm64-low), emulated: ")
    assert [line.split()[0] for line in told.splitlines()[2:5]] == ["FULLY_CONNECTED", "FULLY_CONNECTED", "3"]
    found = json.loads(CliRunner().invoke(cli.cli, [*words, "--json"], standalone_mode=False).stdout)
    assert sum(one["instructions"] for one in found["operators"]) == found["instructions"]


# What is known to be slow


def operator(kind, inputs=(0,), outputs=(1,), shape=(1, 50, 64), layer="norm", **facts):
    return Operator(
        kind=kind, layer=layer, inputs=inputs, outputs=outputs, shape=shape, dtype="int8", **facts
    )


def cost(made, instructions, in_xnnpack=True):
    return OperatorCost(
        operator=made, in_xnnpack=in_xnnpack, instructions=instructions, l1d_misses=0, l2_misses=0
    )


def measurement(instructions):
    figures = {"instructions": instructions, "l1d_misses": 1, "l2_misses": 1}
    numbers = tuple(
        Number(name=name, value=value, provenance="emulated", source="", exact=True)
        for name, value in figures.items()
    )
    return Measurement(target="phone", artifact_sha256="", numbers=numbers)


def norm_as(form):
    """A LayerNorm of tensor 0 as Keras (SQUARED_DIFFERENCE) or edgepack (MUL) writes it, a residual after.

    An RMSNorm has no mean to begin with, and multiplies what it is given.
    """
    few = (1, 50, 1)
    if form == "RMS":
        return [
            operator("ADD", (20, 21), (0,), layer="before"),
            operator("MUL", (0, 0), (3,)),
            operator("MEAN", (3,), (4,), few),
            operator("RSQRT", (4,), (6,), few),
            operator("MUL", (0, 6), (7,)),
            operator("FULLY_CONNECTED", (7,), (10,), layer="dense", multiplications=204_800),
            operator("ADD", (0, 10), (11,), layer="residual"),
        ]
    squared = operator("SUB", (0, 1), (2,)), operator("MUL", (2, 2), (3,))
    if form == "SQUARED_DIFFERENCE":
        squared = operator("SUB", (0, 1), (2,)), operator("SQUARED_DIFFERENCE", (0, 1), (3,))
    root = [operator("RSQRT", (5,), (6,), few)]
    if form == "looked up":
        root = [operator("CAST", (5,), (30,), few), operator("GATHER", (30,), (6,), few)]
    return [
        operator("ADD", (20, 21), (0,), layer="before"),
        operator("MEAN", (0,), (1,), few),
        *squared,
        operator("MEAN", (3,), (4,), few),
        operator("ADD", (4,), (5,), few),
        *root,
        operator("MUL", (2, 6), (7,)),
        operator("MUL", (7,), (8,)),
        operator("ADD", (8,), (9,)),
        operator("FULLY_CONNECTED", (9,), (10,), layer="dense", multiplications=204_800),
        operator("ADD", (0, 10), (11,), layer="residual"),
    ]


@pytest.mark.parametrize(
    ("form", "parts"), [("MUL", 9), ("SQUARED_DIFFERENCE", 9), ("looked up", 10), ("RMS", 4)]
)
def test_an_unfused_norm_is_told_with_its_own_operators_only(form, parts):
    costs = [cost(one, 1_000) for one in norm_as(form)]
    (told,) = slow(costs, 12_000)
    assert told.startswith(f"unfused norms: 1 in {parts} operators (norm), {parts},000 instructions (")


def test_operators_outside_xnnpack_are_told_with_the_pieces_they_cut():
    costs = [
        cost(operator("FULLY_CONNECTED", multiplications=204_800), 80_000),
        cost(operator("GATHER"), 10_000, in_xnnpack=False),
        cost(operator("MUL"), 8_000),
    ]
    (told,) = slow(costs, 98_000)
    assert told.startswith("operators outside XNNPACK: GATHER, 10,000 instructions (10%)")
    assert "up to 2 pieces" in told


def test_reference_kernels_are_told_by_instructions_for_each_product_or_element():
    costs = [
        cost(operator("FULLY_CONNECTED", multiplications=204_800), 500_000),
        cost(operator("BATCH_MATMUL", multiplications=160_000), 351_000, in_xnnpack=False),
        cost(operator("RSQRT", shape=(1, 50, 1)), 50_000, in_xnnpack=False),
    ]
    told = [one for one in slow(costs, 901_000) if one.startswith("reference")]
    assert (
        "BATCH_MATMUL, 351,000 instructions (39%), up to 2.2 instructions for each multiplication" in told[0]
    )
    assert "RSQRT, 50,000 instructions (6%), up to 1,000.0 instructions for each element" in told[1]


def test_dynamic_shapes_are_told():
    (told,) = slow([cost(operator("ADD", static=False), 700), cost(operator("MUL"), 300)], 1_000)
    assert told.startswith("dynamic shapes in ADD: 700 instructions (70%)")


def test_nothing_is_told_of_a_model_that_has_nothing_slow():
    costs = [
        cost(operator("GATHER"), 1_000, in_xnnpack=False),
        cost(operator("FULLY_CONNECTED", multiplications=204_800), 82_000),
        cost(operator("ADD"), 8_000),
    ]
    assert slow(costs, 91_000) == ()


def test_int8_that_executes_more_than_float_is_told_and_what_executes_less_is_not():
    candidates = {
        "float tflite-float32": measurement(1_000),
        "qat tflite-int8": measurement(1_200),
        "ptq tflite-int8": measurement(900),
        "ptq tflite-dynamic": measurement(2_000),
    }
    (told,) = slower_than_float(candidates)
    assert "qat tflite-int8 executes 1,200 instructions, 20% more than float32 with 1,000" in told
    assert slower_than_float({"qat tflite-int8": measurement(1_200)}) == ()


# The report


def test_every_report_shows_the_operators_with_their_provenance_and_what_is_slow():
    result = sample_result()
    for rendered in (text.render(result), markdown.render(result).replace("\\", ""), html.render(result)):
        for words in ("Cortex-A53", "BATCH_MATMUL", "5,510,130", "41.1 %", "emulated", "runtime and rest"):
            assert words in rendered
        assert "operators outside XNNPACK" in rendered


def test_rows_name_what_no_operator_explains_and_end_with_the_whole():
    found = shown.rows(attribution(), 2)
    assert [row[0] for row in found] == [
        "BATCH_MATMUL",
        "FULLY_CONNECTED",
        "9 others",
        "runtime and rest",
        "whole model",
    ]
    amounts = [int(row[3].replace(",", "")) for row in found]
    assert sum(amounts[:-1]) == amounts[-1] == 13_412_877
    assert next(row for row in shown.rows(attribution(), 20) if row[0] == "RESHAPE")[3] == "-209"


def test_targets_with_the_same_attribution_share_one_picture():
    result = sample_result()
    twin = msgspec.structs.replace(result.targets[0], target="raspberry-pi-4")
    both = msgspec.structs.replace(result, targets=(*result.targets, twin))
    assert [one.targets for one in shown.counted(both)] == ["android-arm64-low, raspberry-pi-4"]


def test_the_picture_is_as_wide_as_the_operators_cost():
    whole = shown.frames(attribution())
    leaves = [one for group in whole.children for layer in group.children for one in layer.children]
    positive = [cost.instructions for cost in attribution().operators if cost.instructions > 0]
    assert sorted(leaf.instructions for leaf in leaves) == sorted(positive)
    assert {leaf.style for leaf in leaves if leaf.name in ("BATCH_MATMUL", "RSQRT")} == {
        "product outside",
        "function outside",
    }
    block = next(group for group in whole.children if group.name.startswith("block0"))
    assert [layer.name.partition(" ")[0] for layer in block.children] == [
        "norm",
        "key",
        "query",
        "attention",
    ]


def test_a_reason_stands_where_operators_could_not_be_counted():
    result = sample_result()
    failed = msgspec.structs.replace(attribution(), operators=(), slow=(), failure="phone: it died.")
    target = msgspec.structs.replace(result.targets[0], attribution=failed)
    result = msgspec.structs.replace(result, targets=(target,))
    for rendered in (text.render(result), markdown.render(result), html.render(result)):
        assert "phone: it died." in rendered


def test_a_build_without_arm_targets_has_no_such_section():
    result = sample_result()
    web = msgspec.structs.replace(result, targets=result.targets[2:])
    assert "Where the instructions go" not in html.render(web)
    assert "Most expensive operators" not in text.render(web)
