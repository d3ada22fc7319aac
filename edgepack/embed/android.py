"""A bundle as a module of an Android project: Java, the model and what it is checked against, as assets."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from edgepack.bundle.archive import Bundle
from edgepack.bundle.manifest import Manifest, Tensor
from edgepack.results import Verdict
from edgepack.rows import QueryHashing

FOLDER = "edgemodel"
PLATFORMS = ("android-arm64", "android-armv7")
ASSETS = "src/main/assets/edgepack/"
CORE = "src/main/java/edgepack/core"
FACTS = "src/main/java/edgepack/model/Facts.java"
# The line that bundles are measured with; its 1.4.0 for Android asks for a newer system than apps do.
LITERT_VERSION = "1.4.1"
_BUILD = "build.gradle.kts"
_SOURCES = Path(__file__).parent / "templates" / "android"
_OPTIONAL = ("catalogue.json",)


def files(bundle: Bundle) -> dict[str, bytes]:
    """Return the folder's files, relative path -> bytes; the bundle's own stand in it unchanged."""
    carried = assets(bundle)
    return {
        **{ASSETS + name: data for name, data in carried.items()},
        **{name: path.read_bytes() for name, path in _sources().items()},
        _BUILD: _build(bundle.manifest),
        FACTS: _facts(bundle, carried).encode("ascii"),
        "card.md": bundle.members["card.md"],
    }


def assets(bundle: Bundle) -> dict[str, bytes]:
    """Return the members that the app reads, the model first."""
    names = [bundle.manifest.model_file, "vocabulary.json", "goldens.json", *_OPTIONAL]
    return {name: bundle.members[name] for name in names if name in bundle.members}


def _sources() -> dict[str, Path]:
    found = {path.relative_to(_SOURCES).as_posix(): path for path in sorted(_SOURCES.rglob("*"))}
    return {name: path for name, path in found.items() if path.is_file() and name != _BUILD}


def _build(manifest: Manifest) -> bytes:
    measured = f"{manifest.runtime.name} {manifest.runtime.version}"
    text = (_SOURCES / _BUILD).read_text()
    return text.replace("{measured}", measured).replace("{litert}", LITERT_VERSION).encode()


def _facts(bundle: Bundle, carried: dict[str, bytes]) -> str:
    """Return the class that everything else is checked against. No item's name is in it, only facts."""
    manifest = bundle.manifest
    contract = manifest.contract
    texts = {
        "NAME": manifest.name,
        "TARGET": manifest.target,
        "FORMAT": manifest.artifact.format,
        "RECIPE": manifest.artifact.recipe,
        "CONTENT_HASH": bundle.content_hash,
        "MEASURED_RUNTIME": f"{manifest.runtime.name} {manifest.runtime.version}",
        "LITERT_VERSION": LITERT_VERSION,
    }
    inputs = ", ".join(map(_tensor, contract.inputs))
    parts = [
        str(contract.history_length),
        str(contract.item_count),
        json.dumps(contract.filter_seen),
        _hasher(contract.query),
        f"Arrays.asList({inputs})",
        _tensor(contract.outputs[0]),
        *(_file(name, data) for name, data in carried.items()),
    ]
    return _FACTS.format(
        texts="\n".join(
            f"  public static final String {key} = {_text(text)};" for key, text in texts.items()
        ),
        contract=_lines(parts),
        limits=_lines(map(_limit, (*manifest.verdicts, *bundle.run.verdicts))),
    )


_FACTS = """\
package edgepack.model;

import edgepack.core.Contract;
import edgepack.core.QueryHasher;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** Written by edgepack embed: what the embedded bundle is, and what its files must be. */
public final class Facts {{
{texts}

  /** How to talk to the model, and its files. */
  public static final Contract CONTRACT = new Contract({contract});

  /** The budget that the bundle was judged by. */
  public static final List<Contract.Limit> LIMITS = Collections.unmodifiableList(Arrays.asList({limits}));

  private Facts() {{}}
}}
"""


def _lines(arguments: Iterable[str]) -> str:
    return ",".join(f"\n      {argument}" for argument in arguments)


def _hasher(query: QueryHashing | None) -> str:
    if query is None:
        return "null"
    sizes = ", ".join(map(str, query.sizes))
    numbers = f"{query.length}, {query.buckets}, new int[] {{{sizes}}}, {query.seed}, {query.text_limit}"
    return f"new QueryHasher({_text(query.spec)}, {numbers})"


def _tensor(tensor: Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape))
    return f"new Contract.Tensor({_text(tensor.name)}, {_text(tensor.dtype)}, {shape})"


def _file(name: str, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"new Contract.File({_text(name)}, {_text(digest)}, {len(data)}L)"


def _limit(verdict: Verdict) -> str:
    found = "null" if verdict.found is None else repr(float(verdict.found))
    figures = f"{float(verdict.allowed)!r}, {found}"
    return f"new Contract.Limit({_text(verdict.limit)}, {figures}, {_text(verdict.status)})"


def _text(text: str) -> str:
    """Return a Java string literal in ASCII: JSON's escapes are Java's as well."""
    return json.dumps(text)
