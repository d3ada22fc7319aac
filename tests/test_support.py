"""The support matrix: every pair that can be combined was tried, and what is written down still holds."""

from pathlib import Path

import pytest

from edgepack.compress.recipes import RECIPES
from edgepack.stages import configured
from tests.proofs import support
from tests.proofs.support import WORKS, Cell

# What most people combine, and a technique that a family refuses.
COMMON = [("gru4rec", "tflite-int8"), ("bert4rec", "tflite-int8-f32scores"), ("own ONNX", "")]


def test_every_pair_that_can_be_combined_stands_in_the_results() -> None:
    cells = [support.tried(one) for one in support.recorded()]
    assert support.missing(cells) == []
    assert len([cell for cell in cells if cell.tflite]) <= support.MOST_CELLS


def test_every_family_recipe_and_format_of_the_code_is_an_axis() -> None:
    whole = support.axes()
    assert {"sasrec", "mf", "neumf", "gru4rec", "bert4rec"} <= set(configured.families()) <= set(whole.family)
    rows = {name for names in support.techniques().values() for name in names}
    assert set(RECIPES) - rows == {name for name in RECIPES if name.endswith("prune50-cluster16-qat")}
    assert set(whole.technique) == set(support.techniques())
    assert {"tflite-float32", "tflite-int8"} <= set(whole.tflite)
    assert {"onnx-float32", "onnx-qdq", "ort-qdq"} <= set(whole.onnx)


def test_what_is_not_refused_is_covered_within_the_limit_and_the_same_way_each_time() -> None:
    refused = [support.tried(one) for one in support.recorded() if one.compressed != WORKS]
    first, again = list(support.covering(refused)), list(support.covering(refused))
    assert first == again
    assert support.missing([*refused, *first]) == []
    assert len([cell for cell in first if cell.tflite]) <= support.MOST_CELLS
    assert support.missing([*refused, *first[:-1]]) != []
    assert all(support.allowed(cell) or support.is_refused(cell) for cell in first)


def test_a_part_that_is_refused_is_told_with_its_reason_and_no_cell_is_left_open() -> None:
    for one in support.recorded():
        said = [one.compressed] if one.compressed != WORKS else [one.compressed, one.tflite, one.onnx]
        assert all(said), one
    rows = support.rendered(support.recorded())
    assert "–" not in rows.splitlines()[2], rows


@pytest.mark.parametrize(("family", "format"), COMMON, ids=[family for family, _ in COMMON])
def test_common_cells_give_what_is_written_down(family: str, format: str, tmp_path: Path) -> None:
    written = [one for one in support.recorded() if one.cell.family == family and one.cell.tflite == format]
    found = support.outcome(written[0].cell, tmp_path)
    assert found == written[0]
    assert (found.compressed == WORKS) != (family == "own ONNX")


def test_a_new_part_asks_for_its_own_cells_only(monkeypatch: pytest.MonkeyPatch) -> None:
    done, whole = list(support.covering([])), support.axes()
    monkeypatch.setattr(support, "axes", lambda: whole._replace(onnx=(*whole.onnx, "onnx-new")))
    added = list(support.covering(done))
    assert added
    assert all("onnx-new" in cell for cell in added)
    assert isinstance(added[0], Cell)
