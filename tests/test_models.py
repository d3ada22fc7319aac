"""Model families: both graphs agree, see only the past, serve the contract and survive renaming wrappers."""

import importlib

import numpy as np
import pytest
from edgepack.models import gru4rec
from edgepack.models.graphs import Graphs, bare_name, transfer

from edgepack.errors import ConfigError, ConvertError
from edgepack.keras2 import deterministic, keras

V, LENGTH = 40, 8
FAMILIES = {
    "sasrec": {"width": 8, "ffn_width": 8, "heads": 2},
    "mf": {"width": 8},
    "neumf": {"width": 8, "mlp_in": 8, "mlp_out": 4},
    "gru4rec": {"width": 8, "units": 6},
    "bert4rec": {"width": 8, "ffn_width": 8, "heads": 2},
}
MASK = V + 1
HISTORIES = np.array(
    [[0] * 8, [0, 0, 0, 0, 0, 3, 4, 5], [1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 0, 0, 0, 0, 0, 40]], np.int32
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def graphs(family: str) -> Graphs:
    deterministic(3)
    built = importlib.import_module(f"edgepack.models.{family}").build(V, LENGTH, **FAMILIES[family])
    _disturb(built)
    return built


def _disturb(built: Graphs) -> None:
    """Give every weight a value that no initializer gives, so that a forgotten transfer shows."""
    generator = np.random.default_rng(0)
    for variable in built.training.variables:
        variable.assign(variable + generator.normal(0, 0.3, variable.shape))
    transfer(built.training, built.serving, table=built.table, tied=built.tied)


def _training_scores(built: Graphs, histories: np.ndarray) -> np.ndarray:
    if built.pairwise:
        everything = np.tile(np.arange(V + 1, dtype=np.int32), (len(histories), 1))
        return built.training([histories, everything]).numpy()
    table = built.training.get_layer(built.table).embeddings.numpy()
    asked = np.pad(histories[:, 1:], [(0, 0), (0, 1)], constant_values=MASK) if built.cloze else histories
    return built.training(asked).numpy()[:, -1] @ table.T


def test_serving_gives_the_scores_of_the_trained_graph_also_for_an_empty_history(graphs: Graphs) -> None:
    served = graphs.serving(HISTORIES).numpy()
    assert served.shape == (len(HISTORIES), V + 1)
    assert served.dtype == np.float32
    assert np.isfinite(served).all()
    np.testing.assert_allclose(served, _training_scores(graphs, HISTORIES), atol=2e-5)
    assert np.ptp(served[0]) > 0.01, "an empty history has a prior, not one score for all"


def test_serving_has_the_one_input_and_the_one_output_of_the_contract(graphs: Graphs) -> None:
    assert graphs.serving.input_names == ["history"]
    assert graphs.serving.inputs[0].dtype == "int32"
    assert graphs.serving.output_names == ["scores"]


# A pair model encodes the whole history at once: it has no positions. BERT4Rec looks both ways.
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"neumf", "bert4rec"}), indirect=True)
def test_an_encoder_position_sees_no_later_item(graphs: Graphs) -> None:
    assert not graphs.pairwise
    changed = HISTORIES.copy()
    changed[:, 6:] = [[11, 12]]
    before, after = graphs.training(HISTORIES).numpy(), graphs.training(changed).numpy()
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert not np.allclose(before[:, 7], after[:, 7])


@pytest.mark.parametrize("family", ["bert4rec"], indirect=True)
def test_a_gap_is_filled_from_both_sides_and_tells_nothing_of_what_stood_there(graphs: Graphs) -> None:
    assert graphs.cloze
    masked = HISTORIES[2:3].copy()
    masked[:, 3] = MASK
    before = graphs.training(masked).numpy()[0, 3]
    for place in (2, 4):
        changed = masked.copy()
        changed[:, place] = 30
        assert not np.allclose(before, graphs.training(changed).numpy()[0, 3])
    row = graphs.training.get_layer(graphs.table).embeddings.numpy()[[MASK - 1, 0]]
    assert not np.allclose(graphs.training.get_layer("mask").vector.numpy(), row)


@pytest.mark.parametrize("family", ["gru4rec"], indirect=True)
def test_padding_leaves_the_state_of_a_gru_alone(graphs: Graphs) -> None:
    states = keras.Model(graphs.training.inputs, graphs.training.get_layer("recurrence").output)
    initial = graphs.training.get_layer("recurrence").initial.numpy()
    found = states(HISTORIES[1:2]).numpy()[0]
    np.testing.assert_array_equal(found[:5], np.tile(initial, (5, 1)))
    assert not np.allclose(found[5], initial)


def test_a_gru_gives_what_keras_gives() -> None:
    deterministic(1)
    ours, ids = gru4rec.GatedRecurrence(6, every_step=True), np.ones((2, LENGTH), np.int32)
    theirs = keras.layers.GRU(6, return_sequences=True, reset_after=True)
    x = np.random.default_rng(1).normal(size=(2, LENGTH, 5)).astype(np.float32)
    theirs(x)
    kernel, recurrent, bias = theirs.get_weights()
    generator = np.random.default_rng(2)
    bias[0] = generator.normal(size=bias[0].shape)
    theirs.set_weights([kernel, recurrent, bias])
    ours.build([(None, LENGTH, 18), (None, LENGTH)])
    # Keras orders its gates update, reset, candidate and keeps the state where the update gate is open.
    order = np.concatenate([np.arange(6, 12), np.arange(6), np.arange(12, 18)])
    sign = np.repeat([1, -1, 1], 6)
    ours.set_weights([recurrent[:, order] * sign, np.zeros(6)])
    gates = ((x @ kernel + bias[0])[..., order] * sign).astype(np.float32)
    np.testing.assert_allclose(ours([gates, ids]).numpy(), theirs(x).numpy(), atol=1e-5)


def test_a_full_history_does_not_depend_on_the_row_of_padding(graphs: Graphs) -> None:
    full = HISTORIES[2:3]
    before = graphs.serving(full).numpy()[:, 1:]
    table = graphs.training.get_layer(graphs.table).embeddings
    table.assign(table.numpy() + np.eye(V + 1, 1, dtype=np.float32) * 3)
    transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)
    np.testing.assert_array_equal(before, graphs.serving(full).numpy()[:, 1:])


def test_graphs_consist_of_named_layers_that_keras_can_clone(graphs: Graphs, family: str) -> None:
    for model in (graphs.training, graphs.serving):
        kinds = {type(layer).__name__ for layer in model.layers}
        assert not kinds & {"TFOpLambda", "SlicingOpLambda", "Lambda", "MultiHeadAttention"}, family
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        inputs = [HISTORIES, HISTORIES] if len(model.inputs) == 2 else HISTORIES
        np.testing.assert_array_equal(copy(inputs).numpy(), model(inputs).numpy())


def test_an_item_id_beyond_16_bits_keeps_its_row() -> None:
    mf = importlib.import_module("edgepack.models.mf")
    built = mf.build(70_000, 4, width=2)
    high, wrapped = (
        built.serving(np.array([[0, 0, 0, item]], np.int32)) for item in (70_000, 70_000 - 65_536)
    )
    assert not np.array_equal(high, wrapped)


def test_an_unknown_hyper_parameter_is_named(family: str) -> None:
    with pytest.raises(ConfigError, match="depth is not one of its hyper-parameters"):
        importlib.import_module(f"edgepack.models.{family}").build(V, LENGTH, depth=3)


def test_a_serving_layer_without_namesake_is_refused() -> None:
    source, target = (keras.Sequential([keras.layers.Dense(2, name=n)]) for n in ("here", "there"))
    for model in (source, target):
        model.build((None, 3))
    with pytest.raises(ConvertError, match="layer there"):
        transfer(source, target, table="none", tied=None)


@pytest.mark.parametrize(
    ("wrapped", "bare"),
    [
        ("quant_block0_query", "block0_query"),
        ("prune_low_magnitude_item_embedding", "item_embedding"),
        ("quant_prune_low_magnitude_x", "x"),
        ("quantity", "quantity"),
    ],
)
def test_wrapper_prefixes_are_taken_off_a_layer_name(wrapped: str, bare: str) -> None:
    assert bare_name(wrapped) == bare
