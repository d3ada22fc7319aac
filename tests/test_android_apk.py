"""The sample Android app as an APK: what is in it, how it is signed and aligned, its own code run on a JVM.

Gradle, Android's runtime and LiteRT for Android are not here: see `tests/android/apk.py` and `phone.py`.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from edgepack import embedding
from edgepack.bundle import archive
from edgepack.bundle.archive import Bundle
from edgepack.bundle.goldens import top_k
from edgepack.data.query import hashed
from edgepack.data.read import read
from tests import test_android_core as core
from tests.android import aligned, api, apk, dexer, phone

ROOT = Path(__file__).parents[1]
SAMPLE_APP = ROOT / "sample_apps" / "android"
PROGRAMS = {
    "javac": "openjdk-17-jdk-headless",
    "aapt2": "aapt",
    "apksigner": "apksigner",
    "enjarify": "enjarify",
}
LACKING = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
LACKING += [] if apk.FRAMEWORK.is_file() else ["android-framework-res"]
TITLES = ["", *(f"Thing {index:03d}, “{'äöü'[index % 3]}”" for index in range(1, core.ITEMS + 1))]
NOTICE = "Things, somebody 2015, CC BY 4.0"
ASSETS = "assets/edgepack/"
READY = "recorded lists reproduced"

pytestmark = pytest.mark.skipif(bool(LACKING), reason=f"apt-get install {' '.join(LACKING)}")


class Built(NamedTuple):
    """The sample app with a bundle embedded, packaged and unpacked again."""

    bundle: Bundle
    embedded: embedding.Embedded
    project: Path
    parts: apk.Parts
    key: Path
    path: Path
    app: phone.Unpacked


def with_catalogue(path: Path) -> Path:
    """Add titles, prices and a notice to the bundle."""
    bundle = archive.read(path)
    catalogue = {
        "titles": TITLES,
        "prices": [None, *(index + 0.5 if index % 2 else None for index in range(1, core.ITEMS + 1))],
        "categories": ["", *("Odd" if index % 2 else "" for index in range(1, core.ITEMS + 1))],
        "currency": "GBP",
        "notice": NOTICE,
    }
    members = {**bundle.members, "catalogue.json": msgspec.json.encode(catalogue)}
    archive.write(path, msgspec.structs.replace(bundle.manifest, files={}), bundle.run, members)
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("apk"), core.CASES["int8 scores"]())


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("search"), core.CASES["search"]())


def build(work: Path, case: core.Case) -> Built:
    try:
        dexer.fetch()
    except dexer.UnreachableError as error:
        pytest.skip(f"the dexer cannot be fetched: {error}")
    project = work / "shop"
    shutil.copytree(SAMPLE_APP, project)
    bundle = with_catalogue(core.packed(work / "shop.edgepack", case))
    embedded = embedding.embed(bundle, project, "android")
    parts = apk.build(project, made(work / "first"))
    key = apk.key(work / "key.p12")
    path = apk.signed(parts, work / "shop.apk", key)
    fakes = phone.fakes(parts, work)
    app = phone.unpacked(path, work / "unpacked", fakes, parts.stubs)
    return Built(archive.read(bundle), embedded, project, parts, key, path, app)


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def app(built: Built, tmp_path: Path) -> Iterator[phone.Phone]:
    with phone.started(built.app, tmp_path) as running:
        yield running


def test_the_signature_verifies_with_the_schemes_v2_and_v3(built: Built) -> None:
    said = apk.run("apksigner", "verify", "--verbose", "--min-sdk-version", "24", built.path)
    schemes = dict(re.findall(r"Verified using (v\d) scheme .*: (\w+)", said))
    assert said.startswith("Verifies")
    assert (schemes["v2"], schemes["v3"]) == ("true", "true")


def test_the_package_says_what_gradle_was_told(built: Built) -> None:
    badging = apk.run("aapt2", "dump", "badging", built.path)
    assert "package: name='com.example.shop' versionCode='1' versionName='1.0'" in badging
    assert "sdkVersion:'24'" in badging
    assert "targetSdkVersion:'36'" in badging
    assert "launchable-activity: name='com.example.shop.MainActivity'" in badging


def test_the_app_asks_for_no_permission_and_is_not_backed_up(built: Built) -> None:
    assert "uses-permission" not in apk.run("aapt2", "dump", "permissions", built.path)
    manifest = apk.run("aapt2", "dump", "xmltree", "--file", "AndroidManifest.xml", built.path)
    assert "uses-permission" not in manifest
    assert re.search(r"android:allowBackup\(\w+\)=false", manifest)


def test_every_asset_is_the_bundles_member_and_the_model_lies_uncompressed(built: Built) -> None:
    model = built.bundle.manifest.model_file
    with zipfile.ZipFile(built.path) as packaged:
        found = {name.removeprefix(ASSETS): packaged.read(name) for name in packaged.namelist()}
        entry = packaged.getinfo(ASSETS + model)
    names = {model, "vocabulary.json", "goldens.json", "catalogue.json"}
    carried = {name: data for name, data in found.items() if name in names}
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in carried.items()}
    assert hashes == {name: built.bundle.manifest.files[name].sha256 for name in names}
    assert [name for name in found if name.endswith((".tflite", ".ort", ".onnx"))] == [model]
    assert entry.compress_type == zipfile.ZIP_STORED
    assert aligned.offset_of(built.path, entry) % 4 == 0


def test_what_embed_says_of_the_apk_is_what_the_apk_holds(built: Built) -> None:
    with zipfile.ZipFile(built.path) as packaged:
        sizes = {entry.filename: entry.compress_size for entry in packaged.infolist()}
    told = {part.part: part.apk_bytes for part in built.embedded.parts}
    named = {"model": [built.bundle.manifest.model_file], "catalogue": ["catalogue.json"]}
    named["vocabulary and goldens"] = ["vocabulary.json", "goldens.json"]
    for part, names in named.items():
        assert told[part] == sum(sizes[ASSETS + name] for name in names)
    parts = {**{part: told[part] for part in named}, "code": sizes["classes.dex"]}
    parts["resources"] = sum(size for name, size in sizes.items() if name.startswith(("res", "Android")))
    total = built.path.stat().st_size
    lines = [f"  {part:<25}{size:>10,}" for part, size in {**parts, "APK": total}.items()]
    sys.stdout.write("\n".join(["the sample app, without LiteRT's library", *lines]) + "\n")
    assert 0 < total - sum(parts.values()) < 16_384  # the signature, and what a zip file says of its members


def test_two_builds_give_the_same_apk(built: Built, tmp_path: Path) -> None:
    again = apk.signed(apk.build(built.project, made(tmp_path / "again")), tmp_path / "again.apk", built.key)
    assert again.read_bytes() == built.path.read_bytes()


def shared_library(folder: Path, page_bytes: int) -> bytes:
    """Compile a library for arm64 whose segments are laid out for pages of `page_bytes`."""
    source, made = folder / "answer.c", folder / "answer.so"
    source.write_text("int answer(void) { return 42; }\n")
    words = ["-target", "aarch64-linux-musl", "-shared", "-nostdlib", "-fPIC"]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            *words,
            f"-Wl,-z,max-page-size={page_bytes}",
            source,
            "-o",
            made,
        ],
        check=True,
        env={"ZIG_GLOBAL_CACHE_DIR": str(folder / "cache"), "PATH": "/usr/bin:/bin"},
    )
    return made.read_bytes()


def with_library(built: Built, path: Path, library: bytes) -> Path:
    members = {**built.parts.members, "lib/arm64-v8a/libanswer.so": library}
    return apk.signed(built.parts._replace(members=members), path, built.key)


def test_native_code_for_pages_of_16_kb_passes(built: Built, tmp_path: Path) -> None:
    path = with_library(built, tmp_path / "a.apk", shared_library(tmp_path, 16_384))
    assert aligned.problems(path) == []
    with zipfile.ZipFile(path) as packaged:
        entry = packaged.getinfo("lib/arm64-v8a/libanswer.so")
    assert aligned.offset_of(path, entry) % 16_384 == 0
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in apk.run(
        "apksigner", "verify", "--verbose", path
    )


def test_native_code_for_pages_of_4_kb_is_refused(built: Built, tmp_path: Path) -> None:
    path = with_library(built, tmp_path / "a.apk", shared_library(tmp_path, 4_096))
    found = aligned.problems(path)
    assert found
    assert set(found) == {"lib/arm64-v8a/libanswer.so: a segment is aligned to 4096 bytes"}


def test_native_code_that_lies_between_pages_or_is_compressed_is_refused(tmp_path: Path) -> None:
    library, path = shared_library(tmp_path, 16_384), tmp_path / "a.apk"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lib/arm64-v8a/libanswer.so", library)
    assert aligned.problems(path) == ["lib/arm64-v8a/libanswer.so: begins at byte 56, no multiple of 16384"]
    aligned.write(path, {"lib/arm64-v8a/libanswer.so": library}, ())
    assert aligned.problems(path) == ["lib/arm64-v8a/libanswer.so: is compressed"]


def test_every_stub_is_as_androids_api_36_has_it(built: Built) -> None:
    assert api.differences(built.parts.stubs) == []


def test_a_stub_that_android_has_not_is_named(tmp_path: Path) -> None:
    source = tmp_path / "java/android/view/View.java"
    source.parent.mkdir(parents=True)
    source.write_text(
        "package android.view; public class View extends Thread { View() {}"
        " public static final int VISIBLE = 0; public static final int SHOWN = 0;"
        " public native void setVisibility(boolean b); public native void setVisibility(int v);"
        " public native int setAlpha(float a); public static native View findViewById(int id); }"
    )
    stubs = apk.compile_java([tmp_path / "java"], tmp_path / "classes")
    found = [line.removeprefix("android.view.View: ") for line in api.differences(stubs)]
    assert found[0] == "is no java.lang.Thread"
    named = [re.search(r"name='(\w+)', parameters=(.*), type", line) for line in found[1:]]
    assert [(one[1], one[2]) for one in named if one] == [
        ("SHOWN", "None"),
        ("setVisibility", "['Z']"),
        ("setAlpha", "['F']"),
        ("findViewById", "['I']"),
    ]


def test_every_view_of_a_layout_says_how_wide_and_high_it_is() -> None:
    """A phone ends the app at a view that does not."""
    resources = SAMPLE_APP / "app/src/main/res"
    styles = {style.get("name"): style for style in apk.xml(resources / "values/styles.xml")}

    def styled(name: str | None) -> set[str]:
        style = styles.get(name)
        if style is None:
            return set()
        return {str(item.get("name")) for item in style} | styled(style.get("parent"))

    for layout in (resources / "layout").iterdir():
        for view in apk.xml(layout).iter():
            told = {name.replace(f"{{{apk.NAMESPACE}}}", "android:") for name in view.attrib}
            told |= styled(view.get("style", "").removeprefix("@style/"))
            missing = {"android:layout_width", "android:layout_height"} - told
            assert not missing, f"{layout.name}: {ET.tostring(view, encoding='unicode')[:200]}"


def titles(app: phone.Phone) -> list[str]:
    return [row["title"] for row in app.rows("for_you")]


def pick(app: phone.Phone, title: str) -> None:
    """Find a product on the shelf by its title, and tap it."""
    app.type("search", title)
    (shelf,) = app.views("shelf")
    (row,) = shelf["children"]
    app.tap(row["description"])


def test_a_new_shopper_sees_the_bundles_own_list_for_an_empty_history(built: Built, app: phone.Phone) -> None:
    (empty,) = [case for case in built.bundle.goldens.cases if not case.history]
    assert titles(app)[: len(empty.top_k)] == [TITLES[index] for index in empty.top_k]
    total = len(built.bundle.goldens.cases)
    assert f"{total} of {total} {READY}" in (app.text("self_test") or "")
    assert app.text("engine") == "LiteRT, CPU, 1 thread"
    assert app.text("notice") == NOTICE
    assert built.bundle.content_hash[:12] in (app.text("content") or "")
    assert app.text("status") is None


def test_picking_a_golden_history_shows_its_list(built: Built, app: phone.Phone) -> None:
    golden = min(
        (case for case in built.bundle.goldens.cases if len(case.history) > 1), key=lambda c: len(c.history)
    )
    for index in golden.history:
        pick(app, TITLES[index])
    assert titles(app)[: len(golden.top_k)] == [TITLES[index] for index in golden.top_k]
    picked = {TITLES[index] for index in golden.history}
    assert not picked & set(titles(app))
    reasons = [row["note"] for row in app.rows("for_you") if "note" in row]
    assert reasons
    assert {reason.removeprefix("because of ") for reason in reasons} <= picked


def test_a_picked_product_is_not_recommended_though_the_model_would(built: Built, app: phone.Phone) -> None:
    rows = np.zeros((core.ITEMS, core.LENGTH), np.int32)
    rows[:, -1] = np.arange(1, core.ITEMS + 1)
    scores = core.answers(built.bundle.model)({"history": rows})
    unfiltered = top_k(scores, rows, core.K, False)
    index = next(item for item, best in zip(rows[:, -1], unfiltered, strict=True) if item in best)
    pick(app, TITLES[index])
    (wanted,) = top_k(scores[index - 1 : index], rows[index - 1 : index], core.K, True)
    assert titles(app) == [TITLES[item] for item in wanted]


def test_with_a_keyboard_the_focus_stays_where_a_list_is_filled_anew(app: phone.Phone) -> None:
    def row(name: str, place: int) -> str:
        (shown,) = app.views(name)
        description: str = shown["children"][place]["description"]
        return description

    def focused() -> str:
        view = app.focused()
        assert view is not None
        return str(view["description"] or view["id"])

    app.press(row("shelf", 2))
    assert focused() == row("shelf", 2)
    before = titles(app)
    app.press(row("for_you", 1))
    assert titles(app) != before
    assert focused() == row("for_you", 1)
    (picks,) = app.views("picks")
    assert len(picks["children"]) == 2
    app.press(row("picks", 1))
    assert focused() == row("picks", 0), "the last of those that are left"
    app.press(row("picks", 0))
    assert focused() == "search", "nothing is left of the list"


def test_prices_are_shown_where_the_shop_tells_them(app: phone.Phone) -> None:
    shown = {row["title"]: row.get("price") for row in app.rows("shelf")}
    assert (shown[TITLES[1]], shown[TITLES[2]]) == ("£1.50", None)


def test_what_was_picked_is_there_after_a_restart_until_it_is_cleared(built: Built, tmp_path: Path) -> None:
    with phone.started(built.app, tmp_path) as app:
        pick(app, TITLES[7])
        pick(app, TITLES[9])
        before = titles(app)
    with phone.started(built.app, tmp_path) as app:
        assert titles(app) == before
        (picks,) = app.views("picks")
        assert [chip["text"].partition("  ")[0].rstrip(" ×") for chip in picks["children"]] == [
            TITLES[9],
            TITLES[7],
        ]
        app.tap(picks["children"][0]["description"])
        (picks,) = app.views("picks")
        assert len(picks["children"]) == 1
        app.tap("Clear")
        assert app.text("no_picks")
    with phone.started(built.app, tmp_path) as app:
        assert app.text("no_picks")


def test_the_saved_file_is_a_log_that_edgepack_reads(built: Built, app: phone.Phone, tmp_path: Path) -> None:
    for index in (3, 1, 3):
        pick(app, TITLES[index])
    app.tap("Save as a file")
    events = read(tmp_path / "history.csv")
    assert list(events.item) == [core.NAMES[index] for index in (3, 1, 3)]
    assert events.time is not None
    assert list(events.time) == [1, 2, 3]
    (user,) = set(events.user)
    assert re.fullmatch(r"device-[0-9a-f-]{36}", user)
    assert app.text("status") == "Your picks are saved."


def test_a_search_ranks_by_the_model_and_leaves_the_shelf_alone(search: Built, tmp_path: Path) -> None:
    text = "Große LAMPE, 20 cm"
    rows = {
        "history": np.zeros((1, core.LENGTH), np.int32),
        "query": hashed(text, core.HASHING)[None, :],
    }
    scores = core.answers(search.bundle.model)(rows)
    (wanted,) = top_k(scores, rows["history"], core.K, True)
    with phone.started(search.app, tmp_path) as app:
        shelf, before = app.rows("shelf"), titles(app)
        app.type("search", text)
        assert titles(app) == [TITLES[index] for index in wanted]
        assert titles(app) != before
        assert app.rows("shelf") == shelf


def test_another_engine_can_be_put_in(built: Built, tmp_path: Path) -> None:
    named = {"edgepack.engine": "edgepack.testing.WorkerEngine$Opener"}
    with phone.started(built.app, tmp_path, **named) as app:
        assert app.text("engine") == "LiteRT in Python"
        assert READY in (app.text("self_test") or "")


def altered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("name", ["model.tflite", "vocabulary.json", "goldens.json", "catalogue.json"])
def test_an_altered_asset_is_told_and_nothing_is_recommended(built: Built, tmp_path: Path, name: str) -> None:
    members = {**built.parts.members, ASSETS + name: altered(built.parts.members[ASSETS + name])}
    path = apk.signed(built.parts._replace(members=members), tmp_path / "a.apk", built.key)
    with phone.started(built.app._replace(path=path), tmp_path) as app:
        assert app.text("status") == f"{name} is not the file that was embedded; nothing was run."
        assert app.views("shop") == []


def test_a_model_that_the_build_compressed_is_told_with_the_remedy(built: Built, tmp_path: Path) -> None:
    stored = tuple(suffix for suffix in built.parts.stored if suffix != ".tflite")
    path = apk.signed(built.parts._replace(stored=stored), tmp_path / "a.apk", built.key)
    with phone.started(built.app._replace(path=path), tmp_path) as app:
        status = app.text("status") or ""
        assert status.startswith("model.tflite was compressed by the app's build")
        assert 'noCompress += "tflite"' in status
        assert app.views("shop") == []
