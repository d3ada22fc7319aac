"""A bundle as a folder of a web app: an ES module, its types, the model and the runtime, all hash-checked."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgepack.bundle.archive import Bundle
from edgepack.errors import ToolError
from edgepack.tools.web_runtimes import RuntimeFiles

FOLDER = "edgepack"
_COMPARED = "compared/"
CATALOGUE = "catalogue.json"
WORDS = ("vocabulary.json", "goldens.json")
_SOURCES = Path(__file__).parent / "templates" / "web"
RUNTIME = "runtime/"
_WORKER = "service-worker.js"


class Model(NamedTuple):
    """A bundle, and the runtime that it was measured in."""

    bundle: Bundle
    runtime: RuntimeFiles


def files(model: Model, compared: Model | None = None) -> dict[str, bytes]:
    """Return the folder's files, relative path -> bytes; `compared` is loaded only when the app asks for it.

    Raises ToolError when the runtime at hand is not the one that a bundle was measured with.
    """
    bundle = model.bundle
    models = (model,) if compared is None else (model, compared)
    for one in models:
        _must_be_pinned(one)
    own = carried(model)
    if CATALOGUE in bundle.members:
        own[CATALOGUE] = bundle.members[CATALOGUE]
    other = {} if compared is None else carried(compared, _COMPARED)
    facts = _described(model, own)
    facts["compared"] = compared and _described(compared, other, _COMPARED)
    sources = glue(any(one.bundle.manifest.contract.query is not None for one in models))
    licences = {path.name: path.read_bytes() for one in models for path in one.runtime.licences}
    return {
        **own,
        **other,
        **{RUNTIME + name: data for name, data in licences.items()},
        **{path.name: path.read_bytes() for path in sources},
        _WORKER: _worker(bundle, [path.name for path in sources if path.suffix == ".mjs"]),
        "card.md": bundle.members["card.md"],
        "facts.mjs": _module(facts),
        "package.json": _package(bundle),
    }


def carried(model: Model, below: str = "") -> dict[str, bytes]:
    """Return what a model needs to rank: its members, at their paths `below` the folder, and its runtime."""
    bundle, runtime = model
    names = (bundle.manifest.model_file, *WORDS)
    ran = (*runtime.files.values(), runtime.adapter)
    return {
        **{below + name: bundle.members[name] for name in names},
        **{RUNTIME + path.name: path.read_bytes() for path in ran},
    }


def glue(hashing: bool) -> list[Path]:
    """Return the sources that are copied as they are; `query.mjs` only for a model that takes a search."""
    left_out = {_WORKER} if hashing else {_WORKER, "query.mjs"}
    return [path for path in sorted(_SOURCES.iterdir()) if path.name not in left_out]


def _worker(bundle: Bundle, modules: list[str]) -> bytes:
    """Return the service worker; the content hash in it is what tells a browser of an update."""
    names = json.dumps(["facts.mjs", *modules])
    heading = f"// content {bundle.content_hash}\nconst GLUE = {names};\n"
    return heading.encode() + (_SOURCES / _WORKER).read_bytes()


def _must_be_pinned(model: Model) -> None:
    pinned = model.bundle.manifest.runtime
    for path in model.runtime.files.values():
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


def _described(model: Model, files: dict[str, bytes], below: str = "") -> dict[str, Any]:
    """Return what the module's code needs to know of a model whose members lie `below` the folder."""
    bundle, runtime = model
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
            "adapter": RUNTIME + runtime.adapter.name,
            "files": {part: RUNTIME + path.name for part, path in runtime.files.items()},
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
