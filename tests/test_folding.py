"""The folded form scores as the trained model does, and has fewer operators in its int8 file."""

import numpy as np
import pytest
from edgepack.models import folding, sasrec
from edgepack.models.graphs import transfer

from edgepack.compress import qat
from edgepack.convert import flatbuffer, tflite
from edgepack.errors import ConfigError
from edgepack.keras2 import deterministic

ITEMS, LENGTH, WIDTH = 60, 10, 16
HISTORIES = np.random.default_rng(2).integers(1, ITEMS + 1, (32, LENGTH)).astype(np.int32)
for padded, row in enumerate(HISTORIES[: LENGTH + 1]):
    row[:padded] = 0
SHAPES = [("layer", 1, 1), ("layer", 1, 2), ("layer", 2, 2), ("rms", 1, 2), ("rms", 2, 1), ("none", 2, 2)]


def trained(**hyper):
    """Graphs whose every weight has a value of its own, norms' gamma and beta included."""
    deterministic(7)
    graphs = sasrec.build(ITEMS, LENGTH, **{"width": WIDTH, "ffn_width": 12, **hyper})
    generator = np.random.default_rng(1)
    for variable in graphs.training.variables:
        variable.assign(variable + generator.normal(0.1, 0.3, variable.shape))
    transfer(graphs.training, graphs.serving, table=graphs.table)
    return graphs


def assert_equal(found, wanted):
    assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)
    norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
    assert ((found * wanted).sum(axis=-1) / norms).min() >= 0.999999


@pytest.mark.parametrize(("norm", "heads", "blocks"), SHAPES)
def test_both_folded_graphs_score_as_the_trained_model(norm, heads, blocks):
    graphs = trained(norm=norm, heads=heads, blocks=blocks)
    folded = folding.shipped(graphs)
    assert_equal(folded.serving(HISTORIES).numpy(), graphs.serving(HISTORIES).numpy())
    assert_equal(folded.training(HISTORIES).numpy(), graphs.training(HISTORIES).numpy())


def test_a_model_without_feed_forward_layers_folds_too():
    graphs = trained(ffn_width=0, blocks=1)
    assert folding.layer_of(graphs.training, "block0_ffn_in") is None
    assert_equal(folding.shipped(graphs).serving(HISTORIES).numpy(), graphs.serving(HISTORIES).numpy())


def test_what_writes_to_a_folded_stream_has_no_mean():
    folded = folding.shipped(trained(heads=2)).training
    for name in ("block0_output", "block0_ffn_out", "block1_output"):
        kernel, bias = (folding.dense(folded, name).kernel, folding.dense(folded, name).bias)
        assert np.abs(kernel.mean(axis=1)).max() < 1e-7 < np.abs(kernel).max()
        assert abs(bias.mean()) < 1e-7 < np.abs(bias).max()


def test_a_norm_of_another_name_is_refused():
    with pytest.raises(ConfigError, match="allowed are layer, rms, none"):
        sasrec.build(ITEMS, LENGTH, norm="batch")


EACH = [(kind, (1, LENGTH, WIDTH)) for kind in ("MUL", "ADD", "SUB")]


def kinds(graphs):
    """The operators of the int8 file, each as (kind, rows of its result)."""
    ready = qat.wrap_tables(graphs.serving, ("scores",))
    data = tflite.convert(ready, "tflite-int8", length=LENGTH, calibration=HISTORIES)
    assert flatbuffer.is_all_integer(data)
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    return [
        (
            flatbuffer.operator_name(model, one),
            tuple(int(size) for size in graph.tensors[one.outputs[0]].shape),
        )
        for one in graph.operators
    ]


def test_the_int8_file_multiplies_two_matrices_a_block_and_none_on_all_positions_in_the_last():
    graphs = trained(ffn_width=WIDTH)
    wide = ("FULLY_CONNECTED", (1, LENGTH, WIDTH))
    textbook, folded = kinds(graphs), kinds(folding.shipped(graphs))
    assert textbook.count(wide) == 8
    assert folded.count(wide) == 4
    # The mean of each of three norms goes, and gamma and beta where more than one layer reads them.
    assert [sum(one in EACH for one in form) for form in (textbook, folded)] == [17, 11]


def test_what_is_key_and_value_is_counted_once_and_without_a_product():
    made = kinds(folding.shipped(trained(blocks=1)))
    assert made.count(("DEQUANTIZE", (1, LENGTH, WIDTH))) == 1
    # The square and the root's product of the one norm over all positions, and the positions' mask.
    assert made.count(("MUL", (1, LENGTH, WIDTH))) == 3
