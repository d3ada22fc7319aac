"""The sample app's APK without Gradle: its steps, done by Debian's tools and the fetched dexer.

Android's own classes are stood in for by stubs, and LiteRT's native library is not in the APK: this proves
that the sources compile, what is packaged and how, and lets the packaged code be run.
"""

import os
import re
import subprocess
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.android import aligned, dexer

HERE = Path(__file__).parent
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
NAMESPACE = "http://schemas.android.com/apk/res/android"
PASSWORD = "android"  # noqa: S105 - of a key that lives as long as a test
_FACTS = ("namespace", "applicationId", "minSdk", "targetSdk", "versionCode", "versionName")
# These programs live for a second, in which compiling Java's own code twice does not pay.
_ENVIRONMENT = {**os.environ, "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
_JAVAC = ["javac", "-encoding", "UTF-8", "-Xlint:all,-options", "-Werror"]


class Parts(NamedTuple):
    """What an APK is made of, member -> bytes, and what was compiled on the way."""

    members: dict[str, bytes]
    stored: tuple[str, ...]
    classes: Path
    stubs: Path


def run(*words: str | Path) -> str:
    """Return what a program prints. Raises AssertionError with what it complained of."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=_ENVIRONMENT)
    assert done.returncode == 0, f"{words[0]}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def xml(path: Path) -> ET.Element:
    """Return the root of one of our own XML files."""
    return ET.parse(path).getroot()  # noqa: S314


def compile_java(
    sources: Iterable[Path], into: Path, classpath: Iterable[Path] = (), *, release: str = "8"
) -> Path:
    """Compile files, and every `.java` below folders, warnings being errors; return `into`."""
    files = sorted(file for place in sources for file in [place, *place.rglob("*.java")] if file.is_file())
    run(*_JAVAC, "--release", release, "-d", into, "-cp", ":".join(map(str, classpath)), *files)
    return into


def build(project: Path, work: Path) -> Parts:
    """Compile and link an Android project with its `edgemodel` in place."""
    facts = _facts(project)
    app, model = project / "app/src/main", project / "edgemodel/src/main"
    linked = _resources(app, model, facts, work)
    stubs = compile_java([HERE / "stubs"], work / "stubs")
    sources = [app / "java", model / "java", work / "generated"]
    classes = compile_java(sources, work / "classes", [stubs])
    members = {
        **linked,
        **_assets(model / "assets"),
        "classes.dex": _dex(classes, stubs, facts["minSdk"], work),
    }
    return Parts(members, (".arsc", ".dex", ".so", *_kept_whole(project)), classes, stubs)


def key(path: Path) -> Path:
    """Make a key to sign with: one for all the builds that are to be compared."""
    words = [
        "-genkeypair",
        "-storetype",
        "PKCS12",
        "-storepass",
        PASSWORD,
        "-alias",
        "test",
        "-dname",
        "CN=test",
    ]
    run("keytool", *words, "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000", "-keystore", path)
    return path


def signed(parts: Parts, path: Path, key: Path) -> Path:
    """Write the parts as an APK that is signed with the schemes v2 and v3."""
    unsigned = path.with_suffix(".unsigned")
    aligned.write(unsigned, parts.members, parts.stored)
    schemes = ["--v1-signing-enabled", "false", "--v4-signing-enabled", "false"]
    words: list[str | Path] = ["--ks", key, "--ks-pass", f"pass:{PASSWORD}", *schemes]
    run("apksigner", "sign", *words, "--out", path, unsigned)
    return path


def _facts(project: Path) -> dict[str, str]:
    """Return what Gradle would merge into the manifest, as the build script of the app says it."""
    script = (project / "app/build.gradle.kts").read_text()
    found = {fact: re.search(rf'^\s*{fact} = "?([^"\n]+)"?$', script, re.MULTILINE) for fact in _FACTS}
    return {fact: match[1] for fact, match in found.items() if match}


def _kept_whole(project: Path) -> list[str]:
    script = (project / "app/build.gradle.kts").read_text()
    return [f".{suffix}" for suffix in re.findall(r'noCompress \+= "(\w+)"', script)]


def _resources(app: Path, model: Path, facts: dict[str, str], work: Path) -> dict[str, bytes]:
    manifest, compiled, linked = work / "AndroidManifest.xml", work / "resources.zip", work / "linked.apk"
    _merge(app / "AndroidManifest.xml", model / "AndroidManifest.xml", facts["namespace"], manifest)
    run("aapt2", "compile", "--dir", app / "res", "-o", compiled)
    levels = ["--min-sdk-version", facts["minSdk"], "--target-sdk-version", facts["targetSdk"]]
    version = ["--version-code", facts["versionCode"], "--version-name", facts["versionName"]]
    named: list[str | Path] = [
        "--rename-manifest-package",
        facts["applicationId"],
        "--java",
        work / "generated",
    ]
    words: list[str | Path] = [
        *levels,
        *version,
        *named,
        "-I",
        FRAMEWORK,
        "--manifest",
        manifest,
        "-o",
        linked,
    ]
    run("aapt2", "link", *words, compiled)
    with zipfile.ZipFile(linked) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _merge(app: Path, library: Path, package: str, merged: Path) -> None:
    ET.register_namespace("android", NAMESPACE)
    manifest = xml(app)
    manifest.set("package", package)
    manifest.extend(xml(library))
    ET.ElementTree(manifest).write(merged, encoding="utf-8", xml_declaration=True)


def _assets(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {f"assets/{file.relative_to(folder).as_posix()}": file.read_bytes() for file in files}


def _dex(classes: Path, stubs: Path, min_sdk: str, work: Path) -> bytes:
    into = work / "dex"
    into.mkdir()
    libraries = [_jar(classes, work / "app.jar"), _jar(stubs, work / "android.jar")]
    java: list[str | Path] = ["java", "-cp", dexer.fetch(), dexer.MAIN]
    run(*java, "--release", "--min-api", min_sdk, "--lib", libraries[1], "--output", into, libraries[0])
    assert [file.name for file in into.iterdir()] == ["classes.dex"]
    return (into / "classes.dex").read_bytes()


def _jar(classes: Path, path: Path) -> Path:
    members = {str(file.relative_to(classes)): file.read_bytes() for file in classes.rglob("*.class")}
    aligned.write(path, members, ())
    return path
