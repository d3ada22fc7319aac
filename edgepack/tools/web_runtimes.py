"""The runtimes that run a model in a browser: pinned npm packages, fetched, checked and kept."""

import base64
import gzip
import hashlib
import importlib.util
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from edgepack import proc
from edgepack.errors import ToolError
from edgepack.store import sha256_of, write_atomic
from edgepack.tools import home

_RECORD = "files.json"
_ADAPTERS = Path(__file__).parents[1] / "runtimes" / "web"
_APACHE = Path(__file__).parent / "Apache-2.0.txt"


class Package(NamedTuple):
    """An npm package, and which of its files ship: what each is for -> its path.

    `adapter` is our own module that gives it the calls which all runtimes have.
    `integrity` is what npm states for this version, and what the tarball hashed to when it was pinned.
    `wheel` is the Python package that carries the licence which the npm package only names.
    """

    npm: str
    version: str
    integrity: str
    adapter: str
    files: Mapping[str, str]
    licence: str
    licence_files: tuple[str, ...]
    wheel: str = ""


PACKAGES = {
    "onnxruntime-web": Package(
        "onnxruntime-web",
        "1.30.0",
        "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        "ort.mjs",
        {"api": "dist/ort.wasm.bundle.min.mjs", "wasm": "dist/ort-wasm-simd-threaded.wasm"},
        "MIT",
        ("LICENSE", "ThirdPartyNotices.txt"),
        "onnxruntime",
    ),
    "litertjs": Package(
        "@litertjs/core",
        "2.5.3",
        "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        "litert.mjs",
        {
            "api": "dist/index.js",
            "loader": "wasm/litert_wasm_compat_internal.js",
            "wasm": "wasm/litert_wasm_compat_internal.wasm",
        },
        "Apache-2.0",
        (_APACHE.name,),
    ),
}


class RuntimeFiles(NamedTuple):
    """A runtime as it ships: its files by what they are for (`api`, `wasm` …), licence and notices.

    `adapter` is edgepack's module around them.
    """

    folder: Path
    files: Mapping[str, Path]
    adapter: Path
    licences: tuple[Path, ...]


def locate_runtime(name: str) -> RuntimeFiles:
    """Return the pinned files of a runtime, a key of PACKAGES.

    Raises ToolError when they are missing or altered.
    """
    folder, package = _folder(name), PACKAGES[name]
    try:
        recorded: dict[str, str] = json.loads((folder / _RECORD).read_bytes())
        altered = [file for file, digest in recorded.items() if sha256_of(folder / file) != digest]
    except (OSError, ValueError) as error:
        raise ToolError(
            f"{name} {package.version}", "is not installed", remedy="Run `edgepack setup`."
        ) from error
    if altered:
        raise ToolError(
            str(folder / altered[0]),
            "is not the file that was installed",
            remedy=f"Delete {folder} and run `edgepack setup`.",
        )
    files = {part: folder / Path(path).name for part, path in package.files.items()}
    licences = tuple(folder / file for file in package.licence_files)
    return RuntimeFiles(folder, files, _ADAPTERS / package.adapter, licences)


def fetch_runtime(name: str) -> RuntimeFiles:
    """Return a runtime's files, fetched by npm where they are missing.

    Raises ToolError without npm or its registry, or for a tarball of another hash.
    """
    try:
        return locate_runtime(name)
    except ToolError:
        _fetch(name)
    return locate_runtime(name)


def runtime_bytes(paths: Iterable[Path]) -> dict[str, int]:
    """Return the bytes that `paths` cost to download: raw, gzip (level 9) and brotli (quality 11).

    Every file is compressed on its own, as a web server does. Brotli takes half a minute for a
    runtime, so its result is kept by the file's hash. Raises ToolError when brotli is not installed.
    """
    sizes = [_compressed_sizes(path) for path in paths]
    return {kind: sum(size[kind] for size in sizes) for kind in ("raw", "gzip", "brotli")}


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


def _folder(name: str) -> Path:
    return home() / "web" / f"{name}-{PACKAGES[name].version}"


def _fetch(name: str) -> None:
    folder, package = _folder(name), PACKAGES[name]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of 40 to 140 MB in a package two or three files are used, so the tarball is packed and not installed.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        place = Path(scratch)
        proc.must(
            ["npm", "pack", f"{package.npm}@{package.version}", "--pack-destination", scratch],
            deadline_s=600,
            remedy="Check the network and npm's registry setting, then run `edgepack setup` again.",
            cwd=place,
        )
        (tarball,) = place.glob("*.tgz")
        _check_integrity(tarball, package.integrity)
        made = place / "runtime"
        made.mkdir()
        _extract(tarball, package.files.values(), made)
        _add_licences(name, made)
        record = {path.name: sha256_of(path) for path in sorted(made.iterdir())}
        write_atomic(made / _RECORD, json.dumps(record, indent=1).encode())
        if folder.exists():
            shutil.rmtree(folder)
        made.replace(folder)


def _check_integrity(tarball: Path, pinned: str) -> None:
    digest = hashlib.sha512(tarball.read_bytes()).digest()
    found = f"sha512-{base64.b64encode(digest).decode()}"
    if found != pinned:
        raise ToolError(
            tarball.name,
            f"has the hash {found}",
            allowed=f"the pinned one is {pinned}",
            remedy="Do not use it; check which registry npm is set to.",
        )


def _extract(tarball: Path, wanted: Iterable[str], folder: Path) -> None:
    with tarfile.open(tarball) as archive:
        for path in wanted:
            member = archive.extractfile(f"package/{path}")
            if member is not None:  # a regular file: the tarball's hash is pinned
                (folder / Path(path).name).write_bytes(member.read())


def _add_licences(name: str, folder: Path) -> None:
    # The npm packages state their licence and have no file of it.
    package, sources = PACKAGES[name], _APACHE.parent
    if package.wheel:
        spec = importlib.util.find_spec(package.wheel)
        if spec is None or spec.origin is None:
            raise ToolError(
                f"the licence of {name}",
                f"comes with the {package.wheel} wheel",
                remedy="Install `edgepack[run]`.",
            )
        sources = Path(spec.origin).parent
    for file in package.licence_files:
        shutil.copyfile(sources / file, folder / file)
