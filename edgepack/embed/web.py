"""A bundle as a folder of a web app: an ES module, its types, the model and the runtime, all hash-checked."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

from edgepack.bundle.archive import Bundle
from edgepack.errors import ToolError
from edgepack.tools.web import RuntimeFiles

FOLDER = "edgepack"
_COMPARED = "compared/"
CATALOGUE = "catalogue.json"
WORDS = ("vocabulary.json", "goldens.json")
_SOURCES = Path(__file__).parent / "templates" / "web"
_RUNTIME = "runtime/"
_WORKER = "service-worker.js"


def files(bundle: Bundle, runtime: RuntimeFiles, compared: Bundle | None = None) -> dict[str, bytes]:
    """Return the folder's files, relative path -> bytes; `compared` is loaded only when the app asks for it.

    Raises ToolError when the runtime at hand is not the one that a bundle was measured with.
    """
    bundles = (bundle,) if compared is None else (bundle, compared)
    for one in bundles:
        _must_be_pinned(one, runtime)
    own = carried(bundle)
    if CATALOGUE in bundle.members:
        own[CATALOGUE] = bundle.members[CATALOGUE]
    other = {} if compared is None else carried(compared, _COMPARED)
    ran = {_RUNTIME + path.name: path.read_bytes() for path in (runtime.api, runtime.wasm)}
    facts = _described(bundle, "", runtime, own | ran)
    facts["compared"] = compared and _described(compared, _COMPARED, runtime, other | ran)
    sources = glue(any(one.manifest.contract.query is not None for one in bundles))
    return {
        **own,
        **other,
        **ran,
        **{_RUNTIME + path.name: path.read_bytes() for path in runtime.licences},
        **{path.name: path.read_bytes() for path in sources},
        _WORKER: _worker(bundle, [path.name for path in sources if path.suffix == ".mjs"]),
        "card.md": bundle.members["card.md"],
        "facts.mjs": _module(facts),
        "package.json": _package(bundle),
    }


def carried(bundle: Bundle, below: str = "") -> dict[str, bytes]:
    """Return the members that a model needs to rank, at their paths `below` the folder."""
    names = (bundle.manifest.model_file, *WORDS)
    return {below + name: bundle.members[name] for name in names}


def glue(hashing: bool) -> list[Path]:
    """Return the sources that are copied as they are; `query.mjs` only for a model that takes a search."""
    left_out = {_WORKER} if hashing else {_WORKER, "query.mjs"}
    return [path for path in sorted(_SOURCES.iterdir()) if path.name not in left_out]


def _worker(bundle: Bundle, modules: list[str]) -> bytes:
    """Return the service worker; the content hash in it is what tells a browser of an update."""
    names = json.dumps(["facts.mjs", *modules])
    heading = f"// content {bundle.content_hash}\nconst GLUE = {names};\n"
    return heading.encode() + (_SOURCES / _WORKER).read_bytes()


def _must_be_pinned(bundle: Bundle, runtime: RuntimeFiles) -> None:
    pinned = bundle.manifest.runtime
    for path in (runtime.api, runtime.wasm):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if pinned.files.get(path.name) != found:
            raise ToolError(
                path.name,
                f"has sha256 {found[:16]}…",
                allowed=f"the bundle was measured with that of {pinned.name} {pinned.version}",
                remedy="Build the bundle again with this edgepack, or use the edgepack that built it.",
            )


def _module(facts: dict[str, Any]) -> bytes:
    """Return the module that everything else is checked against."""
    heading = "// Written by edgepack embed: what this folder's files must be."
    return f"{heading}\nexport const facts = {json.dumps(facts, indent=1)};\n".encode()


def _described(bundle: Bundle, below: str, runtime: RuntimeFiles, files: dict[str, bytes]) -> dict[str, Any]:
    """Return what the module's code needs to know of a bundle whose members lie `below` the folder."""
    manifest = bundle.manifest
    vocabulary, goldens = (below + name for name in WORDS)
    return {
        "name": manifest.name,
        "target": manifest.target,
        "format": manifest.artifact.format,
        "recipe": manifest.artifact.recipe,
        "contentHash": bundle.content_hash,
        "itemCount": manifest.contract.item_count,
        "historyLength": manifest.contract.history_length,
        "filterSeen": manifest.contract.filter_seen,
        "query": msgspec.to_builtins(manifest.contract.query),
        "runtime": {
            "name": manifest.runtime.name,
            "version": manifest.runtime.version,
            "api": _RUNTIME + runtime.api.name,
            "wasm": _RUNTIME + runtime.wasm.name,
        },
        "model": below + manifest.model_file,
        "vocabulary": vocabulary,
        "goldens": goldens,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
        "limits": [
            {"limit": v.limit, "allowed": v.allowed, "found": v.found, "status": v.status}
            for v in (*manifest.verdicts, *bundle.run.verdicts)
        ],
    }


def _package(bundle: Bundle) -> bytes:
    package = {
        "name": "edgepack-recommender",
        "version": "0.0.0",
        "description": f"{bundle.manifest.name} for {bundle.manifest.target}, {bundle.content_hash[:16]}",
        "private": True,
        "type": "module",
        "exports": {".": {"types": "./index.d.ts", "default": "./index.mjs"}},
    }
    return json.dumps(package, indent=1).encode() + b"\n"
