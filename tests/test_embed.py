"""`edgepack embed`: what it writes into an app, and what it leaves alone."""

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner, Result

from edgepack import embedding
from edgepack.bundle import archive
from edgepack.bundle.manifest import PinnedRuntime, RunRecord
from edgepack.cli import cli
from edgepack.embed import android, folder, web
from edgepack.errors import BundleError, ConfigError, EdgepackError, LimitError, ToolError
from edgepack.store import sha256_of
from edgepack.tools.web_runtimes import RuntimeFiles
from tests.test_bundle import manifest, write


class Kind(NamedTuple):
    """A kind of app: where edgepack writes in it, and files that a developer might touch there."""

    platform: str
    target: str
    bundle_platform: str
    folder: str
    model: str
    source: str
    below: str


WEB = Kind("web", "web-wasm-mobile", "web-wasm", web.FOLDER, "model.ort", "index.mjs", "runtime/mine.mjs")
ANDROID = Kind(
    "android",
    "android-arm64-low",
    "android-arm64",
    android.FOLDER,
    f"{android.ASSETS}model.tflite",
    "src/main/java/edgepack/core/TopK.java",
    "src/main/java/edgepack/core/Mine.java",
)


@pytest.fixture(params=[WEB, ANDROID], ids=["web", "android"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RuntimeFiles:
    """A runtime of a few bytes: what embedding does needs no real one."""
    place = tmp_path / "runtime"
    place.mkdir()
    for name in ("api.mjs", "core.wasm", "LICENSE", "adapter.mjs"):
        (place / name).write_text(name)
    parts = {"api": place / "api.mjs", "wasm": place / "core.wasm"}
    files = RuntimeFiles(place, parts, place / "adapter.mjs", (place / "LICENSE",))
    monkeypatch.setattr(embedding, "locate_runtime", lambda name: files)
    monkeypatch.setenv("EDGEPACK_HOME", str(tmp_path / "home"))
    return files


@pytest.fixture
def bundle(tmp_path: Path, runtime: RuntimeFiles, kind: Kind) -> Path:
    return made(tmp_path / "a.edgepack", kind, runtime)


def made(path: Path, kind: Kind, runtime: RuntimeFiles, model: bytes = b"model", **more: bytes) -> Path:
    pins = {file.name: sha256_of(file) for file in runtime.files.values()}
    pinned = PinnedRuntime(name="onnxruntime-web", version="1.30.0", licence="MIT", files=pins)
    name = Path(kind.model).name
    changed = msgspec.structs.replace(
        manifest(),
        platform=kind.bundle_platform,
        target=kind.target,
        model_file=name,
        runtime=pinned if kind is WEB else manifest().runtime,
    )
    members = {name: model, "vocabulary.json": b'["","a"]', "goldens.json": b"{}", "card.md": b"#"}
    members |= {f"{member}.json": data for member, data in more.items()}
    archive.write(path, changed, RunRecord(finished_at="2026-01-01", host="x"), members)
    return path


@pytest.fixture
def app(tmp_path: Path) -> Path:
    place = tmp_path / "app"
    place.mkdir()
    (place / "index.html").write_text("the shop's own")
    return place


web_only = pytest.mark.parametrize("kind", [WEB], ids=["web"])
android_only = pytest.mark.parametrize("kind", [ANDROID], ids=["android"])


def content(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def written_facts(app: Path) -> dict[str, Any]:
    module = (app / web.FOLDER / "facts.mjs").read_text()
    facts: dict[str, Any] = json.loads(module.partition("export const facts = ")[2].rstrip(";\n"))
    return facts


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["embed", *map(str, words)])


@web_only
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
    facts = written_facts(app)
    assert facts["contentHash"] == archive.read(bundle).content_hash
    for name in ("model.ort", "vocabulary.json", "goldens.json", "runtime/api.mjs", "runtime/core.wasm"):
        assert facts["files"][name]["sha256"] == sha256_of(app / "edgepack" / name)
    record = json.loads(there["edgepack.json"])
    assert record["files"].keys() == there.keys() - {"edgepack.json"}


@android_only
def test_the_module_holds_the_bundles_own_bytes_as_assets_and_names_their_hashes(
    tmp_path: Path, app: Path, kind: Kind, runtime: RuntimeFiles
) -> None:
    bundle = made(tmp_path / "a.edgepack", kind, runtime, catalogue=b'{"titles": []}')
    done = embedding.embed(bundle, app, "android")
    there = content(app / "edgemodel")
    assert sorted(there) == sorted(done.files)
    members = archive.read(bundle).members
    facts = there[android.FACTS].decode("ascii")
    for name in ("model.tflite", "vocabulary.json", "goldens.json", "catalogue.json"):
        assert there[android.ASSETS + name] == members[name]
        digest = sha256_of(app / "edgemodel" / android.ASSETS / name)
        assert f'Contract.File("{name}", "{digest}", {len(members[name])}L)' in facts
    assert f'CONTENT_HASH = "{archive.read(bundle).content_hash}"' in facts
    assert there["card.md"] == b"#"
    assert {"LICENCES.md", "consumer-rules.pro", "src/main/AndroidManifest.xml"} <= there.keys()
    made_of = {name for name in there if name.endswith((".java", ".kts"))}
    assert all(b"{litert}" not in there[name] for name in made_of)


@android_only
def test_gradle_fetches_one_runtime_and_builds_outside_of_the_folder(bundle: Path, app: Path) -> None:
    embedding.embed(bundle, app, "android")
    build = (app / "edgemodel" / "build.gradle.kts").read_text()
    assert f'api("com.google.ai.edge.litert:litert:{android.LITERT_VERSION}")' in build
    assert "// litert 1.4.0 is what the bundle was measured with" in build
    assert 'layout.buildDirectory.set(rootProject.layout.buildDirectory.dir("edgemodel"))' in build


def test_nothing_else_of_the_app_is_touched(bundle: Path, app: Path, kind: Kind) -> None:
    embedding.embed(bundle, app, kind.platform)
    embedding.remove(app, kind.platform)
    assert content(app) == {"index.html": b"the shop's own"}


def test_embedding_again_changes_nothing_and_another_bundle_updates(
    bundle: Path, app: Path, tmp_path: Path, runtime: RuntimeFiles, kind: Kind
) -> None:
    embedding.embed(bundle, app, kind.platform)
    before = {path: path.stat().st_mtime_ns for path in app.rglob("*")}
    assert embedding.embed(bundle, app, kind.platform).change == "unchanged"
    assert {path: path.stat().st_mtime_ns for path in app.rglob("*")} == before
    newer = made(tmp_path / "newer.edgepack", kind, runtime, b"newer model")
    assert embedding.embed(newer, app, kind.platform).change == "updated"
    assert (app / kind.folder / kind.model).read_bytes() == b"newer model"
    assert sorted(path.name for path in app.iterdir()) == [kind.folder, "index.html"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda place, kind: (place / kind.source).write_text("mine"), "edited {source}"),
        (lambda place, kind: (place / "card.md").unlink(), "missing card.md"),
        (lambda place, kind: (place / kind.below).write_text(""), "added {below}"),
    ],
)
def test_local_changes_are_named_and_kept(
    bundle: Path, app: Path, kind: Kind, change: Callable[[Path, Kind], object], told: str
) -> None:
    embedding.embed(bundle, app, kind.platform)
    change(app / kind.folder, kind)
    before = content(app)
    into = ["--into", app, "--platform", kind.platform]
    for words in ([bundle, *into], [*into, "--remove"], [bundle, *into, "--dry-run"]):
        done = run(*words)
        assert isinstance(done.exception, ConfigError)
        assert told.format(source=kind.source, below=kind.below) in str(done.exception)
        assert "Move your changes out of the folder" in str(done.exception)
    assert content(app) == before


def test_a_folder_of_somebody_elses_is_left_alone(bundle: Path, app: Path, kind: Kind) -> None:
    place = app / kind.folder
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files and no readable edgepack\.json"):
        embedding.embed(bundle, app, kind.platform)
    assert content(place) == {"notes.txt": b"mine"}
    elsewhere = app.parent / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="is no folder of its own"):
        embedding.embed(bundle, app, kind.platform)
    assert content(elsewhere) == {"notes.txt": b"mine"}


def test_a_dry_run_says_the_same_and_writes_nothing(bundle: Path, app: Path, kind: Kind) -> None:
    dry = embedding.embed(bundle, app, kind.platform, dry_run=True)
    assert content(app) == {"index.html": b"the shop's own"}
    assert msgspec.structs.replace(dry, dry_run=False) == embedding.embed(bundle, app, kind.platform)
    assert embedding.embed(bundle, app, kind.platform, dry_run=True).change == "unchanged"
    assert embedding.remove(app, kind.platform, dry_run=True).change == "removed"
    assert (app / kind.folder).is_dir()


def test_removing_what_is_not_there_says_so(app: Path, kind: Kind) -> None:
    with pytest.raises(ConfigError, match=r"is not there\. Nothing was embedded"):
        embedding.remove(app, kind.platform)


@pytest.mark.parametrize(
    ("changes", "platform", "told"),
    [
        (
            {},
            "web",
            "is for android-arm64-low (android-arm64); a web app takes a bundle of a web-wasm target. "
            "Give the bundle of a web target",
        ),
        (
            {"target": "web-wasm-mobile", "platform": "web-wasm"},
            "android",
            "is for web-wasm-mobile (web-wasm); an Android app takes a bundle of an android target. "
            "Give the bundle of an Android target",
        ),
        (
            {"target": "board", "platform": "linux-arm64"},
            "android",
            "is for board (linux-arm64); an Android app takes a bundle of an android target.",
        ),
        ({}, "ios", "platform: is ios; edgepack embeds into apps for web and android. Choose one of them."),
    ],
)
def test_a_bundle_for_another_platform_is_refused(
    app: Path, tmp_path: Path, changes: dict[str, str], platform: str, told: str
) -> None:
    write(tmp_path / "other.edgepack", **changes)
    with pytest.raises(ConfigError) as refused:
        embedding.embed(tmp_path / "other.edgepack", app, platform)
    assert told in str(refused.value)
    assert content(app) == {"index.html": b"the shop's own"}


def test_an_armv7_bundle_is_for_android_too(app: Path, tmp_path: Path) -> None:
    write(tmp_path / "old.edgepack", target="android-armv7", platform="android-armv7")
    assert embedding.embed(tmp_path / "old.edgepack", app, "android").change == "written"


def test_a_tampered_bundle_is_refused(bundle: Path, app: Path, kind: Kind) -> None:
    import zipfile

    with zipfile.ZipFile(bundle) as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(bundle, "w") as packed:
        for name, data in (members | {Path(kind.model).name: b"muddle"}).items():
            packed.writestr(name, data)
    with pytest.raises(BundleError, match=rf"{Path(kind.model).name}: has sha256"):
        embedding.embed(bundle, app, kind.platform)
    assert not (app / kind.folder).exists()


@web_only
def test_another_runtime_than_the_measured_one_is_refused(
    bundle: Path, app: Path, runtime: RuntimeFiles
) -> None:
    runtime.files["wasm"].write_text("another version")
    with pytest.raises(
        ToolError, match=r"core\.wasm: has sha256 .* measured with that of onnxruntime-web 1\.30\.0"
    ):
        embedding.embed(bundle, app, "web")


def test_a_failed_or_interrupted_update_leaves_the_old_folder(
    bundle: Path,
    app: Path,
    kind: Kind,
    tmp_path: Path,
    runtime: RuntimeFiles,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedding.embed(bundle, app, kind.platform)
    before = content(app)
    newer = made(tmp_path / "newer.edgepack", kind, runtime, b"newer model")
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
                embedding.embed(newer, app, kind.platform)
        assert content(app) == before
    assert embedding.embed(newer, app, kind.platform).change == "updated"


def test_a_folder_that_cannot_be_removed_stays_whole(
    bundle: Path, app: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding.embed(bundle, app, kind.platform)
    before = content(app)

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", refused)
        with pytest.raises(LimitError, match=r"could not be changed \(Permission denied\); it is as it was"):
            embedding.remove(app, kind.platform)
    assert content(app) == before


@web_only
def test_the_parts_add_up_to_what_a_visitor_fetches(bundle: Path, app: Path) -> None:
    done = embedding.embed(bundle, app, "web")
    raw = {part.part: part.raw_bytes for part in done.parts}
    assert raw["model"] == len(b"model")
    assert raw["runtime"] == len("api.mjs") + len("core.wasm")
    glue = [path for path in (app / "edgepack").iterdir() if path.suffix in (".mjs", ".js")]
    glue.append(app / "edgepack" / "runtime" / "adapter.mjs")
    assert {"index.mjs", "worker.mjs", "engine.mjs", "service-worker.js"} < {path.name for path in glue}
    assert raw["glue"] == sum(path.stat().st_size for path in glue)
    assert all(part.brotli_bytes and part.brotli_bytes > 0 for part in done.parts)
    assert all(part.apk_bytes is None for part in done.parts)


@android_only
def test_the_parts_of_a_module_are_what_an_apk_holds(
    tmp_path: Path, app: Path, kind: Kind, runtime: RuntimeFiles
) -> None:
    model, catalogue = b"model" * 100, b'{"titles": ["", "Lamp", "Lamp", "Lamp", "Lamp", "Lamp"]}'
    bundle = made(tmp_path / "a.edgepack", kind, runtime, model, catalogue=catalogue)
    parts = {part.part: part for part in embedding.embed(bundle, app, "android").parts}
    assert list(parts) == ["model", "vocabulary and goldens", "catalogue", "glue"]
    assert (parts["model"].raw_bytes, parts["model"].apk_bytes) == (len(model), len(model)), "stored as it is"
    assert parts["catalogue"].raw_bytes == len(catalogue)
    zlib_frame_bytes = 6
    assert parts["catalogue"].apk_bytes == len(zlib.compress(catalogue, 9)) - zlib_frame_bytes
    java = sum(path.stat().st_size for path in app.rglob("*.java"))
    assert parts["glue"].raw_bytes == java > (parts["glue"].apk_bytes or java)
    assert all(part.gzip_bytes is None and part.brotli_bytes is None for part in parts.values())


@android_only
def test_the_command_says_what_an_apk_grows_by_and_what_it_does_not_count(bundle: Path, app: Path) -> None:
    table = run(bundle, "--into", app, "--platform", "android").output
    assert f"{app / 'edgemodel'}: written, " in table
    assert "in the APK" in table and "together" in table
    assert f"not in these bytes: LiteRT {android.LITERT_VERSION}" in table
    assert 'include(":edgemodel")' in table and table.endswith("edgepack.android.EdgeRecommender\n")
    told = json.loads(run(bundle, "--into", app, "--platform", "android", "--json").output)
    assert (told["change"], told["target"]) == ("unchanged", "android-arm64-low")
    assert told["parts"][0] == {"part": "model", "raw_bytes": 5, "apk_bytes": 5}
    removed = run("--into", app, "--platform", "android", "--remove").output
    assert removed == f"{app / 'edgemodel'}: removed\n"


@web_only
def test_a_second_model_is_carried_apart_and_counts_to_no_first_download(
    bundle: Path, app: Path, tmp_path: Path, runtime: RuntimeFiles, kind: Kind
) -> None:
    alone = embedding.embed(bundle, app, "web")
    second = made(tmp_path / "float.edgepack", kind, runtime, b"a float model")
    table = run(bundle, "--into", app, "--compare", second).output
    assert ": updated, " in table
    assert "compared model, on demand" in table
    both = embedding.embed(bundle, app, "web", compared_path=second)
    assert both.change == "unchanged"
    words_bytes = len(b'["","a"]' + b"{}")
    assert both.on_demand is not None
    assert both.on_demand.raw_bytes == len(b"a float model") + words_bytes
    assert both.parts[:-1] == alone.parts[:-1], "all but the glue, which names the second's files"
    facts = written_facts(app)
    assert facts["contentHash"] == archive.read(bundle).content_hash
    assert not any(name.startswith("compared/") for name in facts["files"])
    compared = facts["compared"]
    assert compared["contentHash"] == archive.read(second).content_hash
    assert (app / "edgepack" / compared["model"]).read_bytes() == b"a float model"
    assert compared["files"]["compared/model.ort"]["sha256"] == sha256_of(app / "edgepack/compared/model.ort")
    assert compared["files"].keys() >= {compared["vocabulary"], compared["goldens"], "runtime/core.wasm"}
    assert embedding.embed(bundle, app, "web").on_demand is None
    assert written_facts(app)["compared"] is None
    assert not (app / "edgepack" / "compared").exists()


def test_what_cannot_be_compared_is_refused(
    bundle: Path, app: Path, tmp_path: Path, runtime: RuntimeFiles, kind: Kind
) -> None:
    second = made(tmp_path / "second.edgepack", kind, runtime, b"second")
    other = ANDROID if kind is WEB else WEB
    foreign = made(tmp_path / "foreign.edgepack", other, runtime)
    with pytest.raises(ConfigError, match=f"is for {other.target} "):
        embedding.embed(bundle, app, kind.platform, compared_path=foreign)
    with pytest.raises(ConfigError, match="is the bundle that is embedded; a model is compared with another"):
        embedding.embed(bundle, app, kind.platform, compared_path=bundle)
    if kind is ANDROID:
        with pytest.raises(ConfigError, match="only a web app loads a second model"):
            embedding.embed(bundle, app, kind.platform, compared_path=second)
    assert run("--into", app, "--remove", "--compare", second).exit_code == 2
    assert content(app) == {"index.html": b"the shop's own"}


@web_only
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
    module = sources["index.mjs"]
    exported = set(re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", module, re.MULTILINE))
    for listed in re.findall(r"^export \{ (.*?) \}", module, re.MULTILINE):
        exported |= set(listed.split(", "))
    assert exported == {
        "facts",
        "EdgepackError",
        "openHistory",
        "load",
        "loadCompared",
        "isCached",
        "clearCache",
    }
    declared = re.findall(r"^export (?:function|const|class) (\w+)", sources["index.d.ts"], re.MULTILINE)
    assert set(declared) == exported


def test_errors_end_with_what_to_do(app: Path) -> None:
    with pytest.raises(EdgepackError, match=r"Nothing was embedded here; check --into\.$"):
        folder.remove(app / "edgepack")
