"""Bundles: the same bytes for the same content, and no altered byte goes unnoticed."""

import io
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edgepack import checking
from edgepack.budget import judge
from edgepack.bundle import archive, card, goldens
from edgepack.bundle.manifest import Contract, Manifest, PinnedRuntime, RunRecord, Tensor, encode
from edgepack.cli import cli
from edgepack.errors import BundleError, ConfigError, MeasureError
from edgepack.profiles import Budget
from edgepack.results import Drop, Estimate, Measurement, Number, Quality
from edgepack.rows import Rows
from tests.sample_result import sample_result

ITEMS, LENGTH = 40, 6
BUDGET = Budget(model_bytes=10)
MEASUREMENT = Measurement(target="t", artifact_sha256="0", numbers=())


def scores_of(rows: Rows, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(ITEMS + 1, ITEMS + 1)).astype(np.float32)
    return weights[rows["history"]].sum(axis=1)


def made_goldens() -> goldens.Goldens:
    rows = goldens.invented_rows(np.arange(ITEMS + 1.0), LENGTH, seed=3, count=256)
    return goldens.make_goldens(
        rows, scores_of(rows), k=5, filter_seen=True, largest_difference=1e-6, runtime="test"
    )


def manifest() -> Manifest:
    artifact = sample_result().targets[0].candidates[0].artifact
    artifact = msgspec.structs.replace(artifact, file_name="model.tflite", model_bytes=8)
    return Manifest(
        name="shop",
        edgepack_version="0",
        target="android-arm64-low",
        platform="android-arm64",
        model_file="model.tflite",
        artifact=artifact,
        recipe={"name": "qat"},
        contract=Contract(
            inputs=(Tensor(name="history", dtype="int32", shape=(1, LENGTH)),),
            outputs=(Tensor(name="scores", dtype="float32", shape=(1, ITEMS + 1)),),
            history_length=LENGTH,
            item_count=ITEMS,
            filter_seen=True,
        ),
        runtime=PinnedRuntime(name="litert", version="1.4.0", licence="Apache-2.0"),
        download_bytes=100,
        figures=(Number(name="instructions", value=1000, provenance="emulated", source="qemu", exact=True),),
        quality=Quality(
            metrics={"ndcg@10": Estimate(value=0.1, low=0.09, high=0.11)},
            drops={"ndcg@10": Drop(metric="ndcg@10", value=0.001, upper=0.005, low=-0.002, high=0.004)},
            overlap_at_10=0.95,
            users=100,
            runtime="litert",
            protocol="full catalogue",
        ),
        budget=Budget(model_bytes=10, instructions=2000, max_drop={"ndcg@10": 0.01}, min_overlap_at_10=0.8),
        verdicts=judge(BUDGET, model_bytes=8, download_bytes=100, measurement=MEASUREMENT, quality=None),
        proof="64 users: byte-equal",
        why="fewest download bytes",
    )


def write(path: Path, *, date: str = "2026-01-01", model: bytes = b"TFL3data", **changes: object) -> str:
    members = {
        "model.tflite": model,
        "vocabulary.json": b'["", "a"]',
        "goldens.json": encode(made_goldens()),
        "card.md": card.render(manifest(), "a log", "CC0").encode(),
    }
    changed = msgspec.structs.replace(manifest(), **changes)
    return archive.write(path, changed, RunRecord(finished_at=date, host="x"), members)


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    assert write(tmp_path / "a") == write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_date_is_outside_the_content_hash(tmp_path: Path) -> None:
    assert write(tmp_path / "a") == write(tmp_path / "b", date="2027-01-01")
    assert write(tmp_path / "c", model=b"TFL3other") != write(tmp_path / "a")


def test_a_bundle_reads_back_what_was_written(tmp_path: Path) -> None:
    digest = write(tmp_path / "a.edgepack")
    bundle = archive.read(tmp_path / "a.edgepack")
    assert bundle.content_hash == digest
    assert bundle.model == b"TFL3data"
    assert bundle.goldens == made_goldens()
    assert msgspec.structs.replace(bundle.manifest, files={}) == manifest()


def rewritten(path: Path, name: str, data: bytes | None) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            if info.filename != name:
                new.writestr(info, old.read(info))
        if data is not None:
            new.writestr(name, data)
    path.write_bytes(buffer.getvalue())
    return path


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("model.tflite", b"TFL3evil", "the manifest says"),
        ("model.tflite", None, "lacks model.tflite"),
        ("extra.bin", b"x", "also holds extra.bin"),
        ("manifest.json", b"{}", "cannot be read"),
        ("manifest.json", None, "has no manifest.json"),
        ("run.json", b"[", "cannot be read"),
    ],
)
def test_an_altered_bundle_is_refused(tmp_path: Path, name: str, data: bytes | None, said: str) -> None:
    write(tmp_path / "a.edgepack")
    with pytest.raises(BundleError, match=said):
        archive.read(rewritten(tmp_path / "a.edgepack", name, data))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.edgepack"
    write(path)
    for data in (b"", b"PK\x03\x04 no", path.read_bytes()[:-40]):
        path.write_bytes(data)
        with pytest.raises(BundleError, match="is not a bundle"):
            archive.read(path)


def test_goldens_hold_the_empty_history_and_only_clear_gaps() -> None:
    made = made_goldens()
    assert made.cases[0].history == ()
    assert len(made.cases) == goldens.CASES
    assert len(made.random) == goldens.RANDOM_CASES
    for case in made.cases:
        assert not set(case.history) & set(case.top_k)
        assert 0 not in case.top_k
        assert all(a - b > 4e-6 for a, b in zip(case.scores, case.scores[1:], strict=False))
    rows = goldens.encoded(made, LENGTH)
    assert goldens.failures(made, scores_of(rows), True, LENGTH) == []


def test_goldens_catch_another_model() -> None:
    made = made_goldens()
    found = goldens.failures(made, scores_of(goldens.encoded(made, LENGTH), seed=1), True, LENGTH)
    assert found[0].startswith("case 0 gives")
    assert "less than 0.99" in found[-1]


def test_scores_that_all_tie_make_no_goldens() -> None:
    rows = goldens.invented_rows(np.ones(ITEMS + 1), LENGTH, seed=3, count=256)
    with pytest.raises(MeasureError, match="clearly separated"):
        goldens.make_goldens(
            rows,
            np.zeros((256, ITEMS + 1), np.float32),
            k=5,
            filter_seen=True,
            largest_difference=0.0,
            runtime="test",
        )


def test_more_histories_are_invented_until_some_have_clearly_separated_scores() -> None:
    asked = []

    def answer(rows: Rows) -> np.ndarray:
        asked.append(len(rows["history"]))
        scores = np.zeros((asked[-1], ITEMS + 1), np.float32)
        scores[300:] = np.arange(ITEMS + 1)
        return scores

    found = goldens.find_goldens(
        answer, np.ones(ITEMS + 1), LENGTH, 3, k=5, filter_seen=True, largest_difference=0.2, runtime="test"
    )
    assert asked == [256, 1024]
    assert len(found.cases) == goldens.CASES


def test_invented_histories_are_right_aligned_and_follow_popularity() -> None:
    popularity = np.zeros(ITEMS + 1)
    popularity[7] = 1e9
    histories = goldens.invented_histories(popularity, LENGTH, seed=3, count=256)
    assert not histories[0].any()
    assert (histories[1:, -1] > 0).all()
    assert (histories[1:] == 7).any(axis=1).all()
    assert histories.max() <= ITEMS


def test_equal_scores_order_by_lower_index_and_seen_items_go() -> None:
    scores = np.array([[9, 1, 3, 3, 2]], np.float32)
    history = np.array([[0, 2]], np.int32)
    assert goldens.top_k(scores, history, 3, filter_seen=False).tolist() == [[2, 3, 4]]
    assert goldens.top_k(scores, history, 3, filter_seen=True).tolist() == [[3, 4, 1]]


def test_check_judges_again_by_another_budget(tmp_path: Path) -> None:
    path = tmp_path / "a.edgepack"
    write(path)
    assert checking.check(path, None, None, run_goldens=False).passes
    budget = tmp_path / "budget.toml"
    budget.write_text("[budget]\ninstructions = 999\n")
    strict = checking.check(path, budget, None, run_goldens=False)
    assert not strict.passes
    assert [(v.limit, v.status) for v in strict.verdicts if v.status != "within"] == [
        ("instructions", "over")
    ]


def test_check_compares_with_an_older_bundle(tmp_path: Path) -> None:
    old, new = tmp_path / "old.edgepack", tmp_path / "new.edgepack"
    write(old, download_bytes=200)
    write(new)
    found = checking.check(new, None, old, run_goldens=False)
    assert found.changes["download_bytes"] == (200, 100)
    write(old, target="raspberry-pi-4")
    with pytest.raises(ConfigError, match="is a bundle for raspberry-pi-4"):
        checking.check(new, None, old, run_goldens=False)


def test_goldens_that_cannot_run_do_not_pass(tmp_path: Path) -> None:
    path = tmp_path / "a.edgepack"
    write(path)  # its model is no TFLite file
    found = checking.check(path, None, None)
    assert found.goldens.startswith("fail: ")
    assert not found.passes


def test_inspect_and_check_speak_json(tmp_path: Path) -> None:
    path = tmp_path / "a.edgepack"
    digest = write(path)
    shown = CliRunner().invoke(cli, ["inspect", str(path), "--json"], standalone_mode=False)
    assert msgspec.json.decode(shown.output)["content_hash"] == digest
    checked = CliRunner().invoke(cli, ["check", str(path), "--no-run", "--json"], standalone_mode=False)
    assert msgspec.json.decode(checked.output)[0]["passes"] is True
    assert checked.return_value == 0
    told = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False).output
    assert "instructions" in told
    assert "emulated: qemu" in told
