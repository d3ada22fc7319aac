"""`embed`: a bundle into an app, and what that adds to the app's download."""

import gzip
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from edgepack.bundle import archive
from edgepack.bundle.archive import Bundle
from edgepack.embed import android, folder, web
from edgepack.embed.folder import Change
from edgepack.errors import ConfigError, ToolError
from edgepack.tools.web_runtimes import RuntimeFiles, locate_runtime, runtime_bytes

PartName = Literal["model", "vocabulary and goldens", "catalogue", "runtime", "glue", "compared model"]


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one part of the folder adds to the app's download, each file compressed on its own.

    A web app's visitor fetches `gzip_bytes` or `brotli_bytes`. An APK holds `apk_bytes`: the model as it is,
    for it is mapped into memory, the rest deflated; Java sources stand for the classes made of them.
    """

    part: PartName
    raw_bytes: int
    gzip_bytes: int | None = None
    brotli_bytes: int | None = None
    apk_bytes: int | None = None


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or would be. `parts` is empty when the folder was removed.

    `on_demand` is what a visitor fetches on top of them only when asking to compare two models.
    """

    folder: str
    change: Change
    dry_run: bool
    target: str = ""
    content_hash: str = ""
    files: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    on_demand: Part | None = None


class _Content(NamedTuple):
    """What goes into the folder, relative path -> bytes, and what it costs."""

    files: dict[str, bytes]
    parts: tuple[Part, ...]
    on_demand: Part | None = None


class _Kind(NamedTuple):
    """A kind of app: where edgepack's folder is in it, and the bundles that it takes."""

    folder: str
    platforms: tuple[str, ...]
    allowed: str
    remedy: str
    content: Callable[[Bundle, Bundle | None], _Content]


def embed(
    bundle_path: Path, app: Path, platform: str, *, compared_path: Path | None = None, dry_run: bool = False
) -> Embedded:
    """Write the bundle at `bundle_path` into `app`; what stands there already is updated or left alone.

    `platform` is `web` or `android`. A web app takes a second bundle, `compared_path`, to hold its lists
    against, and loads it on demand. Raises BundleError for an altered bundle, ConfigError for a bundle of
    another platform or a folder that is not edgepack's or was changed, ToolError without a web bundle's
    runtime, LimitError when the folder cannot be written.
    """
    kind = _kind(platform)
    bundle = archive.read(bundle_path)
    _must_fit(bundle_path, bundle, kind)
    compared = _compared(compared_path, bundle, kind)
    content = kind.content(bundle, compared)
    place = app / kind.folder
    change = (
        folder.planned(place, content.files)
        if dry_run
        else folder.put(place, content.files, target=bundle.manifest.target, content_hash=bundle.content_hash)
    )
    return Embedded(
        folder=str(place),
        change=change,
        dry_run=dry_run,
        target=bundle.manifest.target,
        content_hash=bundle.content_hash,
        files=tuple(sorted((*content.files, folder.RECORD))),
        parts=content.parts,
        on_demand=content.on_demand,
    )


def remove(app: Path, platform: str, *, dry_run: bool = False) -> Embedded:
    """Take edgepack's folder out of `app`. Raises ConfigError when it is not there or was changed."""
    place = app / _kind(platform).folder
    if dry_run:
        folder.must_be_ours(place)
    else:
        folder.remove(place)
    return Embedded(folder=str(place), change="removed", dry_run=dry_run)


def _must_fit(path: Path, bundle: Bundle, kind: _Kind) -> None:
    if bundle.manifest.platform not in kind.platforms:
        raise ConfigError(
            str(path),
            f"is for {bundle.manifest.target} ({bundle.manifest.platform})",
            allowed=kind.allowed,
            remedy=kind.remedy,
        )


def _compared(path: Path | None, bundle: Bundle, kind: _Kind) -> Bundle | None:
    if path is None:
        return None
    compared = archive.read(path)
    _must_fit(path, compared, kind)
    if compared.content_hash == bundle.content_hash:
        raise ConfigError(
            str(path),
            "is the bundle that is embedded",
            allowed="a model is compared with another",
            remedy="Give another bundle, say that of the target float-web.",
        )
    return compared


def _web(bundle: Bundle, compared: Bundle | None) -> _Content:
    model = _with_runtime(bundle)
    other = None if compared is None else _with_runtime(compared)
    files = web.files(model, other)
    return _Content(files, _web_parts(model, files), other and _on_demand(model, other))


def _with_runtime(bundle: Bundle) -> web.Model:
    return web.Model(bundle, locate_runtime(bundle.manifest.runtime.name))


def _on_demand(model: web.Model, other: web.Model) -> Part:
    parts = [_model_part(other.bundle), _words_part(other.bundle)]
    if other.runtime != model.runtime:
        parts += [_runtime_part(other.runtime), _fetched("glue", [other.runtime.adapter.read_bytes()])]
    return Part(
        part="compared model",
        raw_bytes=sum(part.raw_bytes for part in parts),
        gzip_bytes=sum(part.gzip_bytes or 0 for part in parts),
        brotli_bytes=sum(part.brotli_bytes or 0 for part in parts),
    )


def _web_parts(model: web.Model, files: dict[str, bytes]) -> tuple[Part, ...]:
    bundle, runtime = model
    glue = [name for name in files if name.endswith((".mjs", ".js")) and "/" not in name]
    glue.append(web.RUNTIME + runtime.adapter.name)
    catalogue = [files[web.CATALOGUE]] if web.CATALOGUE in files else []
    return (
        _model_part(bundle),
        _words_part(bundle),
        *(_fetched("catalogue", [data]) for data in catalogue),
        _runtime_part(runtime),
        _fetched("glue", [files[name] for name in glue]),
    )


def _model_part(bundle: Bundle) -> Part:
    return _fetched("model", [bundle.model], bundle.manifest.artifact.brotli_bytes)


def _words_part(bundle: Bundle) -> Part:
    return _fetched("vocabulary and goldens", [bundle.members[name] for name in web.WORDS])


def _runtime_part(runtime: RuntimeFiles) -> Part:
    sizes = runtime_bytes(runtime.files.values())
    return Part(
        part="runtime", raw_bytes=sizes["raw"], gzip_bytes=sizes["gzip"], brotli_bytes=sizes["brotli"]
    )


def _fetched(name: PartName, contents: list[bytes], brotli_bytes: int | None = None) -> Part:
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


def _android(bundle: Bundle, compared: Bundle | None) -> _Content:
    if compared is not None:
        raise ConfigError(
            "a bundle to compare",
            "is given for an Android app",
            allowed="only a web app loads a second model",
            remedy="Leave it out, or embed both into a web app.",
        )
    files, assets = android.files(bundle), android.assets(bundle)
    model, catalogue = assets[bundle.manifest.model_file], assets.get(web.CATALOGUE)
    parts = (
        Part(part="model", raw_bytes=len(model), apk_bytes=len(model)),
        _packed("vocabulary and goldens", [assets[name] for name in web.WORDS]),
        *([] if catalogue is None else [_packed("catalogue", [catalogue])]),
        _packed("glue", [data for name, data in files.items() if name.endswith(".java")]),
    )
    return _Content(files, parts)


def _packed(name: PartName, contents: Iterable[bytes]) -> Part:
    kept = list(contents)
    apk_bytes = sum(len(zlib.compress(data, 9, wbits=-zlib.MAX_WBITS)) for data in kept)
    return Part(part=name, raw_bytes=sum(map(len, kept)), apk_bytes=apk_bytes)


_KINDS = {
    "web": _Kind(
        web.FOLDER,
        ("web-wasm",),
        "a web app takes a bundle of a web-wasm target",
        "Give the bundle of a web target: `edgepack build -t 'web-*'` makes them.",
        _web,
    ),
    "android": _Kind(
        android.FOLDER,
        android.PLATFORMS,
        "an Android app takes a bundle of an android target",
        "Give the bundle of an Android target: `edgepack build -t 'android-*'` makes them.",
        _android,
    ),
}


def _kind(platform: str) -> _Kind:
    if platform not in _KINDS:
        raise ConfigError(
            "platform",
            f"is {platform}",
            allowed=f"edgepack embeds into apps for {' and '.join(_KINDS)}",
            remedy="Choose one of them.",
        )
    return _KINDS[platform]


def render(done: Embedded, as_json: bool) -> str:
    """Return what was done as text, or as JSON."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode(done), indent=1).decode() + "\n"
    would = "would be " if done.dry_run and done.change != "unchanged" else ""
    lines = [f"{done.folder}: {would}{done.change}"]
    for_apk = any(part.apk_bytes is not None for part in done.parts)
    if done.parts:
        lines[0] += f", {len(done.files)} files, {done.target}, content {done.content_hash[:16]}…"
        lines += _apk_table(done.parts) if for_apk else _web_table(done.parts, done.on_demand)
    if done.change in ("written", "updated") and not done.dry_run:
        lines += _APK_HINT if for_apk else _WEB_HINT
    return "\n".join(lines) + "\n"


_WEB_HINT = ('import { load } from "./edgepack/index.mjs"; index.d.ts beside it has the types',)
_APK_HINT = (
    'include(":edgemodel") in settings.gradle.kts; implementation(project(":edgemodel")) and',
    'androidResources { noCompress += "tflite" } in the app\'s build.gradle.kts; start from '
    "edgepack.android.EdgeRecommender",
)


def _web_table(parts: tuple[Part, ...], on_demand: Part | None) -> list[str]:
    def row(name: str, parts: tuple[Part, ...]) -> str:
        return _row(
            name,
            sum(part.raw_bytes for part in parts),
            sum(part.gzip_bytes or 0 for part in parts),
            sum(part.brotli_bytes or 0 for part in parts),
        )

    heading = "a visitor's first download    raw         gzip        brotli"
    later = [row(f"{on_demand.part}, on demand", (on_demand,))] if on_demand else []
    return [heading, *(row(part.part, (part,)) for part in parts), row("together", parts), *later]


def _apk_table(parts: tuple[Part, ...]) -> list[str]:
    def row(name: str, parts: tuple[Part, ...]) -> str:
        return _row(name, sum(part.raw_bytes for part in parts), sum(part.apk_bytes or 0 for part in parts))

    return [
        "what it adds to an app        raw         in the APK",
        *(row(part.part, (part,)) for part in parts),
        row("together", parts),
        f"not in these bytes: LiteRT {android.LITERT_VERSION}, which the app's own Gradle build fetches",
    ]


def _row(name: str, *sizes_bytes: int) -> str:
    return f"  {name:<26}" + "".join(f"{value:>10,}  " for value in sizes_bytes).rstrip()
