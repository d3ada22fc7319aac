"""An APK's own code on a Java machine: its dex turned back into classes, with fakes of Android's below them.

What is proven so is the app's and the library's logic, out of the packaged file. Android's runtime, how
things look, and LiteRT for Android are not there; the model's kernels are those of LiteRT for Python.
"""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.android import apk, undexed

_JAVA = apk.HERE / "java"
_LINE = re.compile(r"(?P<indent> *)(?P<kind>[NEA]): (?P<rest>.*)")
_RESOURCE = re.compile(r'resource (0x\w+) (\w+)/(\w+)\n +\(\) (?:"(.*)"|\(file\) (\S+)|\(id\))')
_ATTRIBUTES = ("id", "text", "visibility", "contentDescription")


class Unpacked(NamedTuple):
    """An APK as a Java machine takes it: a classpath, and its resources as text."""

    path: Path
    classpath: str
    resources: Path


class Phone:
    """A started app. `screen` is what it shows once it has come to rest."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.screen = self._shown()

    def tap(self, description: str) -> None:
        """Tap what is described so."""
        self._do(f"tap {description}")

    def press(self, description: str) -> None:
        """Go to what is described so with the keyboard, and press it."""
        self._do(f"press {description}")

    def focused(self) -> dict[str, Any] | None:
        """Return the view that has the focus."""
        return next((view for view in _all(self.screen) if "focused" in view), None)

    def type(self, name: str, text: str) -> None:
        """Replace the text of the field with the id `name`."""
        self._do(f"type {name} {text}")

    def text(self, name: str) -> str | None:
        """Return the text of the view with the id `name`, None when it cannot be seen."""
        return next((str(view["text"]) for view in self.views(name)), None)

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the texts of a list's rows by the ids of their views."""
        (shown,) = self.views(name)
        return [
            {view["id"]: view["text"] for view in _all(row) if view.get("text")} for row in shown["children"]
        ]

    def views(self, name: str) -> list[dict[str, Any]]:
        """Return the views with the id `name` that can be seen."""
        return [view for view in _all(self.screen) if view["id"] == name]

    def _do(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self.screen = self._shown()

    def _shown(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"the app ended with {self._process.wait()}; its stderr says why"
        shown: dict[str, Any] = json.loads(line)
        return shown


def _all(view: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield view
    for child in view["children"]:
        yield from _all(child)


def fakes(parts: apk.Parts, work: Path) -> Path:
    """Compile the fakes of Android and LiteRT against the app's classes."""
    engine = [_JAVA / f"edgepack/testing/{name}.java" for name in ("LiteRtWorker", "WorkerEngine")]
    return apk.compile_java(
        [apk.HERE / "fakes", *engine], work / "fakes", [parts.classes, parts.stubs], release="17"
    )


def unpacked(path: Path, work: Path, *below: Path) -> Unpacked:
    """Turn the APK's dex into classes, with the folders of classes `below` them."""
    work.mkdir()
    app, resources = undexed.jar(path, work / "app.jar", *below), work / "resources.properties"
    resources.write_text(_properties(path))
    return Unpacked(path, ":".join(map(str, [app, *below])), resources)


@contextmanager
def started(app: Unpacked, storage: Path, **properties: str) -> Iterator[Phone]:
    """Start the APK's launchable activity; what the app keeps goes into `storage`, and stays there."""
    badging = apk.run("aapt2", "dump", "badging", app.path)
    (activity,) = re.findall(r"launchable-activity: name='([^']+)'", badging)
    worker = {"edgepack.python": sys.executable, "edgepack.worker": str(_JAVA / "litert_worker.py")}
    options = [f"-D{name}={value}" for name, value in (worker | properties).items()]
    java = [
        "java",
        *undexed.RUN,
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Duser.language=en",
        "-Duser.country=GB",
        *options,
    ]
    words = [*java, "-cp", app.classpath, "phone.Phone", app.path, app.resources, storage, activity]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            yield Phone(process)
            process.communicate("back\n", timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0


def _properties(path: Path) -> str:
    """Return the APK's strings, layouts and ids as Java reads properties: `kind/number=value`."""
    found: dict[str, str] = {}
    for number, kind, name, text, file in _RESOURCE.findall(apk.run("aapt2", "dump", "resources", path)):
        if kind == "id":
            found |= {f"id/{name}": number, f"name/{int(number, 16)}": name}
        elif kind == "string":
            found[f"string/{int(number, 16)}"] = text
        elif kind == "layout":
            found[f"layout/{int(number, 16)}"] = _layout(path, file)
    return "".join(f"{name}={_escaped(value)}\n" for name, value in found.items())


def _escaped(text: str) -> str:
    units = text.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _layout(path: Path, file: str) -> str:
    """Return a compiled layout as XML again, with the attributes that the fakes read."""
    parents: dict[int, ET.Element] = {-1: ET.Element("none")}
    for line in apk.run("aapt2", "dump", "xmltree", "--file", file, path).splitlines():
        found = _LINE.fullmatch(line)
        assert found, line
        depth = len(found["indent"])
        if found["kind"] == "E":
            parent = parents[max(one for one in parents if one < depth)]
            parents = {one: element for one, element in parents.items() if one < depth}
            parents[depth] = ET.SubElement(parent, found["rest"].split()[0])
        elif found["kind"] == "A":
            name, _, value = found["rest"].removeprefix(apk.NAMESPACE + ":").partition("=")
            if name.partition("(")[0] in _ATTRIBUTES:
                parents[max(parents)].set(name.partition("(")[0], value.removeprefix("@"))
    return ET.tostring(parents[-1][0], encoding="unicode")
