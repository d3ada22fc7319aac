"""`embed`: a bundle into an app, and what that adds to the app's download."""

import gzip
from pathlib import Path
from typing import Literal

import msgspec

from edgepack.bundle import archive
from edgepack.bundle.archive import Bundle
from edgepack.embed import folder, web
from edgepack.embed.folder import Change
from edgepack.errors import ConfigError, ToolError
from edgepack.tools.web import RuntimeFiles, locate_runtime, runtime_bytes


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of the folder adds to a visitor's first download, each file compressed on its own."""

    part: Literal["model", "vocabulary and goldens", "runtime", "glue"]
    raw_bytes: int
    gzip_bytes: int
    brotli_bytes: int


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or would be. `parts` is empty when the folder was removed."""

    folder: str
    change: Change
    dry_run: bool
    target: str = ""
    content_hash: str = ""
    files: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


def embed(bundle_path: Path, app: Path, platform: str, *, dry_run: bool = False) -> Embedded:
    """Write the bundle at `bundle_path` into `app`; what stands there already is updated or left alone.

    Raises BundleError for an altered bundle, ConfigError for a bundle of another platform or a folder that
    is not edgepack's or was changed, ToolError without the bundle's runtime, LimitError when the folder
    cannot be written.
    """
    bundle = archive.read(bundle_path)
    _must_fit(bundle_path, bundle, platform)
    runtime = locate_runtime()
    files = web.files(bundle, runtime)
    place = app / web.FOLDER
    change = (
        folder.planned(place, files)
        if dry_run
        else folder.put(place, files, target=bundle.manifest.target, content_hash=bundle.content_hash)
    )
    return Embedded(
        folder=str(place),
        change=change,
        dry_run=dry_run,
        target=bundle.manifest.target,
        content_hash=bundle.content_hash,
        files=tuple(sorted((*files, folder.RECORD))),
        parts=_parts(bundle, runtime, files),
    )


def remove(app: Path, platform: str, *, dry_run: bool = False) -> Embedded:
    """Take edgepack's folder out of `app`. Raises ConfigError when it is not there or was changed."""
    _must_be_web(platform)
    place = app / web.FOLDER
    if dry_run:
        folder.must_be_ours(place)
    else:
        folder.remove(place)
    return Embedded(folder=str(place), change="removed", dry_run=dry_run)


def _must_be_web(platform: str) -> None:
    if platform != "web":
        raise ConfigError(
            "--platform",
            f"is {platform}",
            allowed="this edgepack embeds into web apps only",
            remedy="Copy the model out of the bundle, which is a ZIP archive, into the app's assets.",
        )


def _must_fit(path: Path, bundle: Bundle, platform: str) -> None:
    _must_be_web(platform)
    if bundle.manifest.platform != "web-wasm":
        raise ConfigError(
            str(path),
            f"is for {bundle.manifest.target} ({bundle.manifest.platform})",
            allowed="a web app takes a bundle of a web-wasm target",
            remedy="Give the bundle of a web target: `edgepack build -t 'web-*'` makes them.",
        )


def _parts(bundle: Bundle, runtime: RuntimeFiles, files: dict[str, bytes]) -> tuple[Part, ...]:
    model = bundle.manifest.model_file
    words = ("vocabulary.json", "goldens.json")
    glue = [name for name in files if name.endswith((".mjs", ".js")) and "/" not in name]
    carried = runtime_bytes([runtime.api, runtime.wasm])
    return (
        _part("model", [files[model]], bundle.manifest.artifact.brotli_bytes),
        _part("vocabulary and goldens", [files[name] for name in words]),
        Part(
            part="runtime",
            raw_bytes=carried["raw"],
            gzip_bytes=carried["gzip"],
            brotli_bytes=carried["brotli"],
        ),
        _part("glue", [files[name] for name in glue]),
    )


def _part(
    name: Literal["model", "vocabulary and goldens", "glue"],
    contents: list[bytes],
    brotli_bytes: int | None = None,
) -> Part:
    """Return what `contents` cost; `brotli_bytes` where known: brotli takes seconds a megabyte."""
    try:
        import brotli
    except ImportError as error:
        raise ToolError("brotli", "is not installed", remedy="Install `edgepack[run]`.") from error
    return Part(
        part=name,
        raw_bytes=sum(map(len, contents)),
        gzip_bytes=sum(len(gzip.compress(data, compresslevel=9, mtime=0)) for data in contents),
        brotli_bytes=brotli_bytes or sum(len(brotli.compress(data, quality=11)) for data in contents),
    )


def render(done: Embedded, as_json: bool) -> str:
    """Return what was done as text, or as JSON."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode(done), indent=1).decode() + "\n"
    would = "would be " if done.dry_run and done.change != "unchanged" else ""
    lines = [f"{done.folder}: {would}{done.change}"]
    if done.parts:
        lines[0] += f", {len(done.files)} files, {done.target}, content {done.content_hash[:16]}…"
        lines += ["a visitor's first download   raw         gzip        brotli"]
        whole = [_figures("together", done.parts)]
        lines += [_figures(part.part, (part,)) for part in done.parts] + whole
    if done.change in ("written", "updated") and not done.dry_run:
        lines.append('import { load } from "./edgepack/index.mjs"; index.d.ts beside it has the types')
    return "\n".join(lines) + "\n"


def _figures(name: str, parts: tuple[Part, ...]) -> str:
    sums = (
        sum(part.raw_bytes for part in parts),
        sum(part.gzip_bytes for part in parts),
        sum(part.brotli_bytes for part in parts),
    )
    return f"  {name:<25}" + "".join(f"{value:>10,}  " for value in sums).rstrip()
