"""The main job, end to end and small: a log and a model in, measured and judged bundles out."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edgepack.bundle import archive
from edgepack.config import DEFAULT
from edgepack.results import BuildResult, ModelRow
from edgepack.runtimes.static_server import serve
from tests import web_app
from tests.proofs.kill import CONFIG
from tests.readme import README, ROOT

MAKING = ("train/", "compress/", "export/", "convert/", "measure/", "ranked/", "prove/", "float-quality/")


def edgepack(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def report(folder: Path, out: str = "out") -> BuildResult:
    return msgspec.json.decode((folder / out / "report.json").read_bytes(), type=BuildResult)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "edgepack.toml").write_text(CONFIG)
    edgepack(folder, "build", "--junit", "out/junit.xml")
    yield folder
    shutil.rmtree(folder)


def test_every_target_gets_a_bundle_and_a_report(built: Path) -> None:
    result = report(built)
    assert [t.target for t in result.targets] == ["android-arm64-low", "web-wasm-desktop"]
    for target in result.targets:
        assert target.chosen is not None, target.why
        bundle = archive.read(built / "out" / str(target.bundle))
        assert bundle.content_hash == target.content_hash
        assert bundle.manifest.artifact.sha256 == target.chosen
        assert bundle.manifest.contract.item_count == result.data.items
    assert {p.suffix for p in (built / "out").iterdir()} == {".edgepack", ".html", ".json", ".md", ".xml"}
    assert {row.name for row in result.rows if row.kind == "baseline"} == {
        "popularity",
        "item-knn",
        "markov-chain",
        "ease",
    }


def test_no_user_id_or_history_ships(built: Path) -> None:
    for path in (built / "out").glob("*.edgepack"):
        members = archive.read(path).members
        text = b"".join(members[n] for n in ("vocabulary.json", "catalogue.json", "goldens.json", "card.md"))
        assert not re.search(rb"u\d{6}", text)


def test_each_bundle_is_certified_in_its_runtimes_and_in_the_code_that_is_embedded(
    built: Path,
) -> None:
    found = {}
    for path in (built / "out").glob("*.edgepack"):
        certificate = archive.read(path).run.certificate
        assert certificate is not None
        assert certificate.users == 48
        found[path.stem] = {row.runtime: row for row in certificate.rows}
    android, web = found["android-arm64-low"], found["web-wasm-desktop"]
    java = android.pop("edgepack.core in Java, scores by the target")
    module = web.pop("edgepack/index.mjs in Chromium")
    emulated = "litert-arm64 (Cortex-A53, emulated)"
    assert set(android) == {"litert", "tflite-runtime", emulated}
    assert set(web) == {"onnxruntime", "ort-web-node", "ort-web-chromium"}
    assert module == msgspec.structs.replace(web["ort-web-chromium"], runtime=module.runtime)
    if shutil.which("javac"):
        assert java == msgspec.structs.replace(android[emulated], runtime=java.runtime)
    else:
        assert java.note.startswith("not measured: javac: is not installed.")
    assert all((row.overlap_at_10 or 0) > 0.9 for row in (*android.values(), *web.values())), found


def test_a_second_build_does_nothing_again(built: Path) -> None:
    before = {p.name: p.read_bytes() for p in (built / "out").glob("*.edgepack")}
    edgepack(built, "build")
    result = report(built)
    assert result.stages_made == ()
    hashes = {t.bundle: t.content_hash for t in result.targets}
    assert {name: archive.read(built / "out" / name).content_hash for name in before} == hashes


def test_another_target_trains_and_converts_nothing_again(built: Path) -> None:
    edgepack(built, "build", "-t", "android-arm64-low", "-t", "android-arm64-mid", "--out", "more")
    made = report(built, "more").stages_made
    assert made
    assert not [stage for stage in made if stage.startswith(("train/", "compress/", "convert/", "ranked/"))]


def test_the_bundles_check_and_inspect(built: Path) -> None:
    bundles = sorted(str(p) for p in (built / "out").glob("*.edgepack"))
    found = msgspec.json.decode(edgepack(built, "check", *bundles, "--json").stdout)
    assert [one["goldens"] for one in found] == ["pass", "pass"]
    shown = edgepack(built, "inspect", bundles[0]).stdout
    assert "emulated: " in shown
    strict = built / "strict.toml"
    strict.write_text("[budget]\ninstructions = 10\n")
    assert "over" in edgepack(built, "check", bundles[0], "--budget", str(strict), code=1).stdout


def test_the_web_bundle_runs_in_the_sample_page_with_no_other_request(built: Path, tmp_path: Path) -> None:
    site = shutil.copytree(web_app.SAMPLE_APP, tmp_path / "site")
    edgepack(built, "embed", "out/web-wasm-desktop.edgepack", "--into", str(site))
    bundle = archive.read(built / "out" / "web-wasm-desktop.edgepack")
    with serve(site) as served, web_app.chromium() as browser:
        page, requests = web_app.opened(browser, f"{served.url}/")
        count = len(bundle.goldens.cases)
        assert page.text_content("#self-test").startswith(f"✓ {count} of {count} ")
        best = [bundle.goldens.cases[0].top_k[place] for place in range(3)]
        titles = msgspec.json.decode(bundle.members["catalogue.json"])["titles"]
        assert page.locator("#list button").all_inner_texts()[:3] == [titles[item] for item in best]
    embedded = {f"/edgepack/{path.relative_to(site / 'edgepack')}" for path in site.rglob("edgepack/**/*")}
    asked = {url.removeprefix(served.url) for url in web_app.over_the_network(requests)}
    assert asked <= web_app.SHELL | embedded
    assert f"/edgepack/{bundle.manifest.model_file}" in asked


def test_measuring_a_file_gives_the_counts_of_the_build(built: Path) -> None:
    bundle = archive.read(built / "out" / "android-arm64-low.edgepack")
    model = built / "model.tflite"
    model.write_bytes(bundle.model)
    twice = [
        edgepack(built, "measure", str(model), "-t", "android-arm64-low", "--json").stdout for _ in range(2)
    ]
    counts = [
        {n["name"]: n["value"] for n in msgspec.json.decode(one)["numbers"] if n["exact"]} for one in twice
    ]
    assert counts[0] == counts[1]
    assert counts[0]["instructions"] > 1000


def test_a_budget_that_nothing_meets_exits_1_and_leaves_no_bundle(built: Path) -> None:
    config = CONFIG.replace("min_overlap_at_10 = 0.0", "min_overlap_at_10 = 0.0\nmodel_bytes = 10")
    (built / "tight.toml").write_text(config)
    done = edgepack(built, "build", "-c", "tight.toml", "--out", "tight", code=1)
    assert "model_bytes over" in done.stdout
    assert not list((built / "tight").glob("*.edgepack"))
    assert all(target.chosen is None for target in report(built, "tight").targets)


def test_the_readme_library_example_runs(built: Path) -> None:
    found = re.search(r"<!-- library -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    assert found[1].count("\n") <= 12
    done = subprocess.run(
        [sys.executable, "-c", found[1]], cwd=built, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "web-wasm-desktop web-wasm-desktop.edgepack\n"


def test_70_000_items_work(tmp_path: Path) -> None:
    rows = (f"u{user},i{user * 175 + place},{place}" for user in range(400) for place in range(175))
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    config = CONFIG.replace("[data.shop]\nitems = 500\nusers = 300\n", '[data]\npath = "log.csv"\n')
    config = config.replace("epochs = 4", "epochs = 1").replace('["qat"]', '["ptq"]')
    config = config.replace("[targets]", '[targets]\nfolder = "devices"').replace("max_drop", "# max_drop")
    (tmp_path / "edgepack.toml").write_text(config)
    # Nobody can rank items that one user alone ever took, so this target of our own has no drop limit.
    profile = (ROOT / "targets" / "android-arm64-mid.toml").read_text()
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "my-phone.toml").write_text(profile.replace("max_drop", "# max_drop"))
    edgepack(tmp_path, "build", "-t", "my-phone")
    (target,) = report(tmp_path).targets
    bundle = archive.read(tmp_path / "out" / str(target.bundle))
    assert bundle.manifest.contract.item_count == 70_000
    cases = (*bundle.goldens.cases, *bundle.goldens.random)
    assert max(item for case in cases for item in case.history) > 2**16
    assert max(item for case in cases for item in case.top_k) > 2**16
    assert msgspec.json.decode(edgepack(tmp_path, "check", f"out/{target.bundle}", "--json").stdout)[0][
        "passes"
    ]


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ('[data]\npath = "none.csv"\n', 4, "there is no such file"),
        ('[data]\npath = "log.csv"\n[data.columns]\nuser = "who"\n', 4, "who"),
        ('[data]\npath = "empty.csv"\n', 4, "empty.csv"),
        ('[data]\npath = "single.csv"\n', 4, "splitting the log"),
        ('[data]\npath = "log.csv"\n[model]\nfamily = "sasrek"\n', 3, "Did you mean 'sasrec'?"),
        ('[data]\npath = "log.csv"\n[model]\nfile = "model.txt"\n', 6, "model.txt"),
        ('[data]\npath = "log.csv"\n[targets]\nnames = ["android-arm64-lo"]\n', 3, "Did you mean"),
        ('[data]\npath = "log.csv"\n[compress]\nrecipes = ["qatt"]\n', 3, "Did you mean 'qat'?"),
        ('[data]\npaht = "log.csv"\n', 3, "Did you mean 'path'?"),
        ('[data]\nset = "online-retial"\n', 4, "Did you mean 'online-retail'?"),
    ],
)
def test_bad_input_is_one_sentence_and_its_exit_code(
    tmp_path: Path, config: str, code: int, said: str
) -> None:
    rows = [f"u{u},i{(u * 7 + n) % 20},{n}" for u in range(30) for n in range(5)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    (tmp_path / "empty.csv").write_text("user,item,time\n")
    (tmp_path / "single.csv").write_text("user,item,time\nu1,i1,1\nu2,i2,1\n")
    (tmp_path / "model.txt").write_text("no model")
    (tmp_path / "edgepack.toml").write_text(config)
    done = edgepack(tmp_path, "build", code=code)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edgepack: ")
    assert said in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_missing_tool_is_named_with_its_remedy(built: Path, tmp_path: Path) -> None:
    model = built / "model.tflite"
    environment = {**os.environ, "EDGEPACK_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", "measure", str(model), "-t", "android-arm64-low"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert "edgepack setup" in done.stderr


def test_on_the_embedded_shop_the_float_sasrec_beats_every_baseline_by_a_tenth(tmp_path: Path) -> None:
    words = ["train", "--json", "-c", str(DEFAULT)]
    rows = msgspec.json.decode(edgepack(tmp_path, *words).stdout, type=list[ModelRow])
    model, *baselines = [row.metrics["ndcg@10"].value for row in rows]
    assert [row.kind for row in rows] == ["model", *["baseline"] * 4]
    assert model > 1.1 * max(baselines)
