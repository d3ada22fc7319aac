"""The floor: processes, the store, profiles, budgets and configuration."""

import json
import pickle
import signal
import sys
import time
from pathlib import Path

import pytest

from edgepack import proc
from edgepack.budget import judge
from edgepack.config import DEFAULT, load_config
from edgepack.errors import ConfigError, DataError, LimitError, ToolError
from edgepack.profiles import Budget, Profile, decode_toml, load_profiles, merged, select_profiles
from edgepack.results import Drop, Estimate, Measurement, Number, Quality
from edgepack.store import Store, write_atomic

NOTHING = Measurement(target="t", artifact_sha256="0", numbers=())


def test_an_error_is_one_sentence_that_survives_pickling() -> None:
    error = DataError("log.csv, line 3", "has no user", allowed="each row names one", remedy="Delete it.")
    assert str(error) == "log.csv, line 3: has no user; each row names one. Delete it."
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301


def test_a_missing_program_is_a_tool_error() -> None:
    with pytest.raises(ToolError, match="no-such-program"):
        proc.run(["no-such-program"], deadline_s=5)


def test_a_process_past_its_deadline_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(LimitError, match="still running after 1 s"):
        proc.run(["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"], deadline_s=1)
    time.sleep(0.2)
    status = Path(f"/proc/{pid_file.read_text().strip()}/status")
    # Nobody may have collected it yet: a zombie is dead all the same.
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_process_returns_output_status_and_the_end_of_stderr() -> None:
    done = proc.run([sys.executable, "-c", "import sys; print('out'); sys.exit('bad')"], deadline_s=20)
    assert (done.returncode, done.stdout, done.stderr_tail) == (1, b"out\n", "bad")
    killed = proc.run(["sh", "-c", "kill -SEGV $$"], deadline_s=20)
    assert killed.returncode == -signal.SIGSEGV


def test_the_store_makes_a_result_once(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "x").write_text("1")

    store = Store(tmp_path)
    first = store.produce("stage", {"a": 1}, make)
    again = Store(tmp_path).produce("stage", {"a": 1}, make)
    other = store.produce("stage", {"a": 2}, make)
    assert first == again
    assert len(calls) == 2
    assert other.path != first.path
    assert other.digest == first.digest  # equal bytes: what follows need not run again


def test_the_store_goes_on_from_what_a_killed_run_left(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "epoch1").write_text("done")
        raise KeyboardInterrupt

    def resumed(folder: Path) -> None:
        assert (folder / "epoch1").read_text() == "done"

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.produce("train", {}, killed)
    assert store.produce("train", {}, resumed).path.is_dir()


def test_the_store_makes_an_altered_result_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = store.produce("stage", {}, lambda folder: write_atomic(folder / "x", b"good"))
    (kept.path / "x").write_bytes(b"evil")
    again = store.produce("stage", {}, lambda folder: write_atomic(folder / "x", b"good"))
    assert (again.path / "x").read_bytes() == b"good"
    assert len(store.made) == 2


def test_every_shipped_profile_reads_and_knows_its_emulator() -> None:
    profiles = load_profiles()
    assert len(profiles) >= 7
    for profile in profiles.values():
        assert (profile.platform == "web-wasm") == (profile.browser is not None)
        assert (profile.platform != "web-wasm") == (profile.emulation is not None)
        if profile.name == "float-web":
            assert profile.budget == Budget(), "what the others are held against"
        else:
            assert profile.budget.max_drop == {"ndcg@10": 0.01}


def test_a_misspelt_key_gets_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "edgepack.toml"
    path.write_text('[data]\npath = "x.csv"\n[model]\nfamily = "sasrec"\n[quality]\nfilter_sen = true\n')
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "quality.filter_sen is not a known key" in str(caught.value)
    assert "Did you mean 'filter_seen'?" in str(caught.value)


def test_a_wrong_value_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "edgepack.toml"
    path.write_text('[data]\npath = "x.csv"\n[budget."web-*"]\nmodel_bytes = "small"\n')
    with pytest.raises(ConfigError, match="model_bytes"):
        load_config(path)


def test_two_sources_of_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "edgepack.toml"
    path.write_text('[data]\npath = "x.csv"\nset = "online-retail"\n')
    with pytest.raises(ConfigError, match="sets path and set of path, set, shop"):
        load_config(path)


def test_the_embedded_default_is_valid() -> None:
    assert load_config(DEFAULT).data.shop is not None


def test_an_unknown_target_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'raspberry-pi-4'"):
        select_profiles(("rasberry-pi-4",), load_profiles())


def test_a_budget_overrides_limit_by_limit() -> None:
    own = Budget(model_bytes=1, max_drop={"hr@10": 0.1})
    both = merged(Budget(model_bytes=9, instructions=5, max_drop={"ndcg@10": 0.01}), own)
    assert both == Budget(model_bytes=1, instructions=5, max_drop={"ndcg@10": 0.01, "hr@10": 0.1})


def test_a_missing_figure_never_passes() -> None:
    budget = Budget(instructions=10, latency_ms=5.0, min_overlap_at_10=0.8, max_drop={"f1@10": 0.1})
    modelled = Number(
        name="latency_p50_ms", value=None, provenance="modelled", source="no device model", exact=False
    )
    measurement = Measurement(target="t", artifact_sha256="0", numbers=(modelled,))
    verdicts = judge(budget, model_bytes=1, download_bytes=1, measurement=measurement, quality=None)
    assert [v.status for v in verdicts] == ["not measured"] * 4
    assert verdicts[1].note == "no device model"


@pytest.mark.parametrize(
    ("value", "upper", "status"),
    [(0.01, 0.03, "within"), (0.011, 0.02, "over"), (0.0, 0.031, "over"), (-0.05, 0.0, "within")],
)
def test_a_drop_needs_its_point_and_its_upper_bound(value: float, upper: float, status: str) -> None:
    drop = Drop(metric="ndcg@10", value=value, upper=upper, low=0, high=0)
    quality = Quality(
        metrics={"ndcg@10": Estimate(value=0.1)},
        drops={"ndcg@10": drop},
        overlap_at_10=0.9,
        users=1,
        runtime="r",
        protocol="p",
    )
    (verdict,) = judge(
        Budget(max_drop={"ndcg@10": 0.01}),
        model_bytes=1,
        download_bytes=1,
        measurement=NOTHING,
        quality=quality,
    )
    assert verdict.status == status


def test_a_limit_is_inclusive_and_its_margin_is_a_share() -> None:
    budget = Budget(model_bytes=100, download_bytes=50)
    inside, outside = judge(budget, model_bytes=100, download_bytes=51, measurement=NOTHING, quality=None)
    assert (inside.status, inside.margin) == ("within", 0.0)
    assert outside.status == "over"
    assert outside.margin == pytest.approx(-0.02)


def test_a_profile_with_a_wrong_platform_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        'description = "d"\nplatform = "ios"\nformats = []\n[runtime]\nname = "litert"\nversion = "1"\n'
    )
    with pytest.raises(ConfigError, match="platform"):
        decode_toml(path, Profile, {"name": "x"})


def test_an_atomic_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", json.dumps({"a": 1}).encode())
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
