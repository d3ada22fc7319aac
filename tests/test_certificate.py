"""The parity certificate: how the lists of two runtimes agree, and what `inspect` shows of it."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgepack import checking
from edgepack.bundle import archive
from edgepack.bundle.manifest import Certificate, ParityRow, RunRecord, encode
from edgepack.evaluate.agreement import Lists, agreement
from tests.test_bundle import made_goldens, manifest

OURS = Lists(np.array([[1, 2, 3], [4, 5, 6]], np.int32), np.array([[9, 8, 7], [3, 2, 1]], np.float32))


def test_equal_lists_agree_in_everything() -> None:
    assert agreement(OURS, OURS) == (1.0, 1.0, 1.0, 0.0)


def test_items_order_and_scores_are_told_apart() -> None:
    theirs = Lists(
        np.array([[2, 1, 3], [4, 6, 7]], np.int32), np.array([[8.5, 8, 7], [3, 2, 1.5]], np.float32)
    )
    found = agreement(OURS, theirs)
    assert found.overlap == pytest.approx((1 + 2 / 3) / 2)
    assert found.top_1 == 0.5
    assert found.kendall_tau == pytest.approx((1 / 3 + 1) / 2), (
        "one of three pairs swapped; 4 before 6 in both"
    )
    assert found.largest_difference == 1.0, "item 1: 9 against 8; item 6: 1 against 2"


def test_lists_without_a_common_item_have_no_order_to_compare() -> None:
    theirs = Lists(np.array([[7, 8, 9], [1, 2, 3]], np.int32), OURS.scores)
    assert agreement(OURS, theirs) == (0.0, 0.0, None, None)


def test_a_list_that_is_short_is_not_padded_with_agreement() -> None:
    short = Lists(np.array([[1, 0, 0], [4, 0, 0]], np.int32), OURS.scores)
    assert agreement(OURS, short).overlap == pytest.approx(1 / 3)
    assert agreement(short, OURS).overlap == 1.0, "all that the reference shows is there"


def test_inspect_shows_the_certificate_of_every_runtime_and_why_one_was_not_measured(tmp_path: Path) -> None:
    rows = (
        ParityRow(
            runtime="litert",
            overlap_at_10=0.99,
            top_1_agreement=1.0,
            kendall_tau=0.95,
            largest_difference=0.01,
        ),
        ParityRow(runtime="tflite-runtime", note="not measured: an operator is missing"),
    )
    run = RunRecord(
        finished_at="2026-01-01", host="x", certificate=Certificate(reference="Keras", users=48, rows=rows)
    )
    members = {"model.tflite": b"x", "vocabulary.json": b"[]", "goldens.json": encode(made_goldens())}
    archive.write(tmp_path / "one.edgepack", manifest(), run, members)
    shown = [
        line.split("  ") for line in checking.render_bundle(tmp_path / "one.edgepack", False).splitlines()
    ]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in shown]
    assert ["parity of 48 users' ten best items with Keras"] in cells
    assert ["litert", "0.99", "1", "0.01", "0.95"] in cells
    assert ["tflite-runtime", "—", "—", "—", "—", "not measured: an operator is missing"] in cells
    told = msgspec.json.decode(checking.render_bundle(tmp_path / "one.edgepack", True))
    assert told["run"]["certificate"]["rows"][0]["kendall_tau"] == 0.95
