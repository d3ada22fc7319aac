"""onnxruntime-web (pinned), Node and Chromium: what running and measuring a web artifact needs."""

import base64
import contextlib
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from edgepack import proc
from edgepack.errors import EdgepackError, ToolError
from edgepack.store import sha256_of, write_atomic
from edgepack.tools import Tell, Tool, home

VERSION = "1.30.0"
API_FILE = "ort.wasm.bundle.min.mjs"
WASM_FILE = "ort-wasm-simd-threaded.wasm"
LICENCE_FILES = ("LICENSE", "ThirdPartyNotices.txt")

# What npm's registry states for this version, and what the tarball hashed to when it was pinned.
_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
_RECORD = "files.json"
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_DEBIAN_PACKAGES = {"chromium": "chromium", "node": "nodejs", "npm": "npm"}
_SETUP = "Run `edgepack setup`"


class RuntimeFiles(NamedTuple):
    """The files of onnxruntime-web that ship: API (JavaScript), WebAssembly, licence and notices."""

    folder: Path
    api: Path
    wasm: Path
    licences: tuple[Path, ...]


class WebTools(NamedTuple):
    """Everything that running an artifact in Node and in Chromium needs."""

    node: Path
    chromium: Path
    runtime: RuntimeFiles


def locate() -> WebTools:
    """Return the paths of all web tools. Raises ToolError for the first one that is missing."""
    return WebTools(locate_node(), locate_chromium(), locate_runtime())


def locate_node() -> Path:
    """Return the `node` program. Raises ToolError when there is none."""
    found = shutil.which("node") or _playwrights_node()
    return Path(found) if found else _missing("node", "Or install Node 18 or later.")


def locate_chromium() -> Path:
    """Return the Chromium program: $EDGEPACK_CHROMIUM, the system's, or a fetched one.

    Raises ToolError when there is none.
    """
    own = os.environ.get("EDGEPACK_CHROMIUM")
    unpacked = home() / "web" / "chromium" / "chromium"
    named = (shutil.which(name) for name in _CHROMIUM_NAMES)
    found = own or next(filter(None, named), None) or (unpacked if unpacked.is_file() else None)
    return (
        Path(found)
        if found
        else _missing("chromium", "Or set EDGEPACK_CHROMIUM to a Chrome or Chromium program.")
    )


def locate_playwright() -> Path:
    """Return the folder of the playwright package. Raises ToolError when it is not installed."""
    spec = importlib.util.find_spec("playwright")
    if spec is None or spec.origin is None:
        raise ToolError("playwright", "is not installed", remedy="Install `edgepack[run]`.")
    return Path(spec.origin).parent


def locate_runtime() -> RuntimeFiles:
    """Return the pinned onnxruntime-web files. Raises ToolError when they are missing or altered."""
    folder = _runtime_folder()
    try:
        recorded: dict[str, str] = json.loads((folder / _RECORD).read_bytes())
        altered = [name for name, digest in recorded.items() if sha256_of(folder / name) != digest]
    except (OSError, ValueError) as error:
        raise ToolError(f"onnxruntime-web {VERSION}", "is not installed", remedy=f"{_SETUP}.") from error
    if altered:
        raise ToolError(
            str(folder / altered[0]),
            "is not the file that was installed",
            remedy=f"Delete {folder} and run `edgepack setup`.",
        )
    licences = tuple(folder / name for name in LICENCE_FILES)
    return RuntimeFiles(folder, folder / API_FILE, folder / WASM_FILE, licences)


def runtime_bytes(paths: Iterable[Path]) -> dict[str, int]:
    """Return the bytes that `paths` cost to download: raw, gzip (level 9) and brotli (quality 11).

    Every file is compressed on its own, as a web server does. Brotli takes half a minute for the
    runtime, so its result is kept by the file's hash. Raises ToolError when brotli is not installed.
    """
    sizes = [_compressed_sizes(path) for path in paths]
    return {kind: sum(size[kind] for size in sizes) for kind in ("raw", "gzip", "brotli")}


def status() -> list[Tool]:
    """List the web tools, found or not; changes nothing."""
    both, browser = "web-wasm targets", "load, latency and memory of web-wasm targets"
    return [
        _tool(f"onnxruntime-web {VERSION}", locate_runtime, both),
        _tool("node", locate_node, both),
        _tool("chromium", locate_chromium, browser),
        _tool("playwright", locate_playwright, browser),
    ]


def fetch(tell: Tell) -> None:
    """Bring what is missing: system programs by apt (as root) or unpacked, onnxruntime-web by npm.

    Raises ToolError, naming the remedy, for a part that cannot be had.
    """
    tell("chromium and node", 0, 3)
    _fetch_programs()
    tell(f"onnxruntime-web {VERSION}", 1, 3)
    try:
        runtime = locate_runtime()
    except ToolError:
        _fetch_runtime()
        runtime = locate_runtime()
    tell("download sizes of the runtime", 2, 3)
    with contextlib.suppress(ToolError):  # without brotli there is nothing to build for the web either
        runtime_bytes([runtime.api, runtime.wasm])
    tell("web tools", 3, 3)


def _compressed_sizes(path: Path) -> dict[str, int]:
    kept = home() / "web" / "compressed" / f"{sha256_of(path)}.json"
    try:
        known: dict[str, int] = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        known = _compress(path.read_bytes())
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, json.dumps(known).encode())
    return known


def _compress(data: bytes) -> dict[str, int]:
    try:
        import brotli
    except ImportError as error:
        raise ToolError("brotli", "is not installed", remedy="Install `edgepack[run]`.") from error
    zipped = gzip.compress(data, compresslevel=9, mtime=0)
    return {"raw": len(data), "gzip": len(zipped), "brotli": len(brotli.compress(data, quality=11))}


def _runtime_folder() -> Path:
    return home() / "web" / f"onnxruntime-web-{VERSION}"


def _missing(program: str, otherwise: str) -> Path:
    raise ToolError(program, "is not installed", remedy=f"{_SETUP}. {otherwise}")


def _playwrights_node() -> str | None:
    # The playwright wheel carries a whole Node; it does where the system has none.
    spec = importlib.util.find_spec("playwright")
    node = Path(spec.origin).parent / "driver" / "node" if spec and spec.origin else None
    return str(node) if node and node.is_file() else None


def _tool(name: str, locate_one: Callable[[], Path | RuntimeFiles], disables: str) -> Tool:
    try:
        found = locate_one()
    except ToolError as error:
        return Tool(name=name, path=None, version="", disables=disables, remedy=error.remedy)
    path = found.folder if isinstance(found, RuntimeFiles) else found
    return Tool(name=name, path=str(path), version=_version(name, path), disables=disables, remedy="")


def _version(name: str, path: Path) -> str:
    if name == "playwright":
        from importlib.metadata import version

        return version("playwright")
    if path.is_dir():
        return VERSION
    try:
        return proc.run([path, "--version"], deadline_s=20).stdout.decode("utf-8", "replace").strip()
    except EdgepackError:
        return "unknown"


def _fetch_programs() -> None:
    wanted = [name for name in ("chromium", "npm") if not _have(name)]
    if not wanted:
        return
    if os.geteuid() == 0:
        packages = [_DEBIAN_PACKAGES[name] for name in wanted]
        words = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        proc.must(words, deadline_s=900, remedy=_by_hand(wanted))
    elif wanted == ["chromium"]:
        from edgepack.tools.debian import unpack_program

        unpack_program("chromium", "usr/lib/chromium/chromium", home() / "web" / "chromium")
    else:
        raise ToolError("npm", "is not installed", remedy=_by_hand(wanted))


def _have(program: str) -> bool:
    if program != "chromium":
        return shutil.which(program) is not None
    try:
        return locate_chromium().is_file()
    except ToolError:
        return False


def _by_hand(programs: list[str]) -> str:
    packages = " ".join(_DEBIAN_PACKAGES[name] for name in programs)
    return f"Have an administrator run `apt-get install --no-install-recommends {packages}`."


def _fetch_runtime() -> None:
    folder = _runtime_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Only two of the package's 140 MB of files are used, so the tarball is packed and not installed.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = Path(scratch)
        proc.must(
            ["npm", "pack", f"onnxruntime-web@{VERSION}", "--pack-destination", scratch],
            deadline_s=600,
            remedy="Check the network and npm's registry setting, then run `edgepack setup` again.",
            cwd=place,
        )
        tarball = place / f"onnxruntime-web-{VERSION}.tgz"
        _check_integrity(tarball)
        made = place / "runtime"
        made.mkdir()
        _extract(tarball, made)
        _add_licences(made)
        record = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
        write_atomic(made / _RECORD, json.dumps(record, indent=1).encode())
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)


def _check_integrity(tarball: Path) -> None:
    digest = hashlib.sha512(tarball.read_bytes()).digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != _INTEGRITY:
        raise ToolError(
            tarball.name,
            f"has the hash {found}",
            allowed=f"the pinned one is {_INTEGRITY}",
            remedy="Do not use it; check which registry npm is set to.",
        )


def _extract(tarball: Path, folder: Path) -> None:
    with tarfile.open(tarball) as archive:
        for name in (API_FILE, WASM_FILE):
            member = archive.extractfile(f"package/dist/{name}")
            if member is not None:  # a regular file: the tarball's hash is pinned
                (folder / name).write_bytes(member.read())


def _add_licences(folder: Path) -> None:
    # The npm package states MIT and has no licence file; the project's Python wheel carries it.
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise ToolError(
            "the licence of onnxruntime-web",
            "comes with the onnxruntime wheel",
            remedy="Install `edgepack[run]`.",
        )
    for name in LICENCE_FILES:
        shutil.copyfile(Path(spec.origin).parent / name, folder / name)
