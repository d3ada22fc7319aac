"""`edgepack embed`: what it writes into an app, and what it leaves alone."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from edgepack import embedding
from edgepack.bundle import archive
from edgepack.bundle.manifest import PinnedRuntime, RunRecord
from edgepack.cli import cli
from edgepack.embed import folder, web
from edgepack.errors import BundleError, ConfigError, EdgepackError, LimitError, ToolError
from edgepack.store import sha256_of
from edgepack.tools.web import RuntimeFiles
from tests.test_bundle import manifest, write


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RuntimeFiles:
    """A runtime of a few bytes: what embedding does needs no real one."""
    place = tmp_path / "runtime"
    place.mkdir()
    for name in ("api.mjs", "core.wasm", "LICENSE"):
        (place / name).write_text(name)
    files = RuntimeFiles(place, place / "api.mjs", place / "core.wasm", (place / "LICENSE",))
    monkeypatch.setattr(embedding, "locate_runtime", lambda: files)
    monkeypatch.setenv("EDGEPACK_HOME", str(tmp_path / "home"))
    return files


@pytest.fixture
def bundle(tmp_path: Path, runtime: RuntimeFiles) -> Path:
    return made(tmp_path / "web.edgepack", runtime)


def made(path: Path, runtime: RuntimeFiles, model: bytes = b"model") -> Path:
    pins = {file.name: sha256_of(file) for file in (runtime.api, runtime.wasm)}
    pinned = PinnedRuntime(name="onnxruntime-web", version="1.30.0", licence="MIT", files=pins)
    changed = msgspec.structs.replace(
        manifest(), platform="web-wasm", target="web-wasm-mobile", model_file="model.ort", runtime=pinned
    )
    members = {"model.ort": model, "vocabulary.json": b'["","a"]', "goldens.json": b"{}", "card.md": b"#"}
    archive.write(path, changed, RunRecord(finished_at="2026-01-01", host="x"), members)
    return path


@pytest.fixture
def app(tmp_path: Path) -> Path:
    place = tmp_path / "app"
    place.mkdir()
    (place / "index.html").write_text("the shop's own")
    return place


def content(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["embed", *map(str, words)])


def test_the_folder_holds_model_runtime_licence_and_types_and_names_every_hash(
    bundle: Path, app: Path
) -> None:
    done = embedding.embed(bundle, app, "web")
    there = content(app / "edgepack")
    assert done.change == "written"
    assert sorted(there) == sorted(done.files)
    assert there["model.ort"] == b"model"
    assert {"index.mjs", "index.d.ts", "runtime/api.mjs", "runtime/core.wasm", "runtime/LICENSE"} <= set(
        there
    )
    assert "query.mjs" not in there, "this model takes no search"
    facts = json.loads(there["facts.mjs"].decode().partition("export const facts = ")[2].rstrip(";\n"))
    assert facts["contentHash"] == archive.read(bundle).content_hash
    for name in ("model.ort", "vocabulary.json", "goldens.json", "runtime/api.mjs", "runtime/core.wasm"):
        assert facts["files"][name]["sha256"] == sha256_of(app / "edgepack" / name)
    record = json.loads(there["edgepack.json"])
    assert record["files"].keys() == there.keys() - {"edgepack.json"}


def test_nothing_else_of_the_app_is_touched(bundle: Path, app: Path) -> None:
    embedding.embed(bundle, app, "web")
    embedding.remove(app, "web")
    assert content(app) == {"index.html": b"the shop's own"}


def test_embedding_again_changes_nothing_and_another_bundle_updates(
    bundle: Path, app: Path, tmp_path: Path, runtime: RuntimeFiles
) -> None:
    embedding.embed(bundle, app, "web")
    before = {path: path.stat().st_mtime_ns for path in app.rglob("*")}
    assert embedding.embed(bundle, app, "web").change == "unchanged"
    assert {path: path.stat().st_mtime_ns for path in app.rglob("*")} == before
    newer = made(tmp_path / "newer.edgepack", runtime, b"newer model")
    assert embedding.embed(newer, app, "web").change == "updated"
    assert (app / "edgepack" / "model.ort").read_bytes() == b"newer model"
    assert sorted(path.name for path in app.iterdir()) == ["edgepack", "index.html"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda place: (place / "index.mjs").write_text("mine"), "edited index.mjs"),
        (lambda place: (place / "card.md").unlink(), "missing card.md"),
        (lambda place: (place / "runtime" / "mine.mjs").write_text(""), "added runtime/mine.mjs"),
    ],
)
def test_local_changes_are_named_and_kept(bundle: Path, app: Path, change: object, told: str) -> None:
    embedding.embed(bundle, app, "web")
    change(app / "edgepack")  # type: ignore[operator]
    before = content(app)
    for words in ([bundle, "--into", app], ["--into", app, "--remove"], [bundle, "--into", app, "--dry-run"]):
        done = run(*words)
        assert isinstance(done.exception, ConfigError)
        assert told in str(done.exception)
        assert "Move your changes out of the folder" in str(done.exception)
    assert content(app) == before


def test_a_folder_of_somebody_elses_is_left_alone(bundle: Path, app: Path) -> None:
    (app / "edgepack").mkdir()
    (app / "edgepack" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files and no readable edgepack\.json"):
        embedding.embed(bundle, app, "web")
    assert content(app / "edgepack") == {"notes.txt": b"mine"}
    elsewhere = app.parent / "elsewhere"
    (app / "edgepack").rename(elsewhere)
    (app / "edgepack").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is no folder of its own"):
        embedding.embed(bundle, app, "web")
    assert content(elsewhere) == {"notes.txt": b"mine"}


def test_a_dry_run_says_the_same_and_writes_nothing(bundle: Path, app: Path) -> None:
    dry = embedding.embed(bundle, app, "web", dry_run=True)
    assert content(app) == {"index.html": b"the shop's own"}
    assert msgspec.structs.replace(dry, dry_run=False) == embedding.embed(bundle, app, "web")
    assert embedding.embed(bundle, app, "web", dry_run=True).change == "unchanged"
    assert embedding.remove(app, "web", dry_run=True).change == "removed"
    assert (app / "edgepack").is_dir()


def test_removing_what_is_not_there_says_so(app: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not there\. Nothing was embedded"):
        embedding.remove(app, "web")


@pytest.mark.parametrize(
    ("platform", "told"),
    [
        ("web", r"is for android-arm64-low \(android-arm64\); a web app takes a bundle of a web-wasm target"),
        ("android", "--platform: is android; this edgepack embeds into web apps only"),
    ],
)
def test_a_bundle_for_another_platform_is_refused(
    app: Path, tmp_path: Path, platform: str, told: str
) -> None:
    write(tmp_path / "android.edgepack")
    with pytest.raises(ConfigError, match=told):
        embedding.embed(tmp_path / "android.edgepack", app, platform)
    assert not (app / "edgepack").exists()


def test_a_tampered_bundle_is_refused(bundle: Path, app: Path) -> None:
    import zipfile

    with zipfile.ZipFile(bundle) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(bundle, "w") as packed:
        for name, data in (members | {"model.ort": b"muddle"}).items():
            packed.writestr(name, data)
    with pytest.raises(BundleError, match=r"model\.ort: has sha256"):
        embedding.embed(bundle, app, "web")
    assert not (app / "edgepack").exists()


def test_another_runtime_than_the_measured_one_is_refused(
    bundle: Path, app: Path, runtime: RuntimeFiles
) -> None:
    runtime.wasm.write_text("another version")
    with pytest.raises(
        ToolError, match=r"core\.wasm: has sha256 .* measured with that of onnxruntime-web 1\.30\.0"
    ):
        embedding.embed(bundle, app, "web")


def test_a_failed_or_interrupted_update_leaves_the_old_folder(
    bundle: Path, app: Path, tmp_path: Path, runtime: RuntimeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding.embed(bundle, app, "web")
    before = content(app)
    newer = made(tmp_path / "newer.edgepack", runtime, b"newer model")
    rename = Path.rename
    for failure, seen in (
        (OSError(28, "No space left on device"), LimitError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def failing(self: Path, target: Path, failure: BaseException = failure) -> Path:
            if self.name == "new":
                raise failure
            return rename(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", failing)
            with pytest.raises(seen):
                embedding.embed(newer, app, "web")
        assert content(app) == before
    assert embedding.embed(newer, app, "web").change == "updated"


def test_a_folder_that_cannot_be_removed_stays_whole(
    bundle: Path, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding.embed(bundle, app, "web")
    before = content(app)

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refused)
        with pytest.raises(LimitError, match=r"could not be changed \(Permission denied\); it is as it was"):
            embedding.remove(app, "web")
    assert content(app) == before


def test_the_parts_add_up_to_what_a_visitor_fetches(bundle: Path, app: Path) -> None:
    done = embedding.embed(bundle, app, "web")
    raw = {part.part: part.raw_bytes for part in done.parts}
    assert raw["model"] == len(b"model")
    assert raw["runtime"] == len("api.mjs") + len("core.wasm")
    glue = ("index.mjs", "history.mjs", "facts.mjs", "service-worker.js")
    assert raw["glue"] == sum((app / "edgepack" / name).stat().st_size for name in glue)
    assert all(part.brotli_bytes > 0 for part in done.parts)


def test_the_command_prints_a_table_or_json(bundle: Path, app: Path) -> None:
    table = run(bundle, "--into", app).output
    assert f"{app / 'edgepack'}: written, " in table
    assert "together" in table
    told = json.loads(run(bundle, "--into", app, "--json").output)
    assert (told["change"], told["target"]) == ("unchanged", "web-wasm-mobile")
    assert run("--into", app, "--remove").output == f"{app / 'edgepack'}: removed\n"
    assert run("--into", app).exit_code == 2


def test_the_types_name_everything_that_the_module_exports() -> None:
    sources = {path.name: path.read_text() for path in web.glue(hashing=True)}
    exported = {
        line.split("export ")[1].removeprefix("async ").split()[1].partition("(")[0]
        for line in sources["index.mjs"].splitlines()
        if line.startswith(("export async function", "export function", "export class"))
    }
    internal = {"topK", "rightAligned"}
    assert internal < exported
    for name in exported - internal:
        assert f" {name}" in sources["index.d.ts"]


def test_errors_end_with_what_to_do(app: Path) -> None:
    with pytest.raises(EdgepackError, match=r"Nothing was embedded here; check --into\.$"):
        folder.remove(app / "edgepack")
