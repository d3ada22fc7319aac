"""Bundles as deterministic ZIP archives: written whole or not at all, verified byte for byte on read."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from edgepack.bundle.manifest import (
    MANIFEST,
    RUN,
    SCHEMA_VERSION,
    FileEntry,
    Goldens,
    Manifest,
    RunRecord,
    content_hash,
    encode,
)
from edgepack.errors import BundleError
from edgepack.store import write_atomic

SUFFIX = ".edgepack"
_T = TypeVar("_T")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGEST_MEMBER_BYTES = 1 << 30
_GET_A_NEW_ONE = "Build it again with `edgepack build`, or fetch a fresh copy."


class Bundle(NamedTuple):
    """A verified bundle in memory; `members` maps file names to bytes, manifest and run record apart.

    `content_hash` is the SHA-256 of the manifest as it stands in the file: it covers everything exact.
    """

    manifest: Manifest
    run: RunRecord
    members: dict[str, bytes]
    content_hash: str

    @property
    def model(self) -> bytes:
        """The model file."""
        return self.members[self.manifest.model_file]

    @property
    def goldens(self) -> Goldens:
        """The golden inputs and outputs."""
        return msgspec.json.decode(self.members["goldens.json"], type=Goldens)


def sealed(manifest: Manifest, run: RunRecord, members: dict[str, bytes]) -> Bundle:
    """Return the bundle of these parts; `manifest.files` is filled in here."""
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        for name, data in sorted(members.items())
    }
    manifest = msgspec.structs.replace(manifest, files=entries)
    return Bundle(manifest, run, members, content_hash(manifest))


def write(path: Path, manifest: Manifest, run: RunRecord, members: dict[str, bytes]) -> str:
    """Write a bundle atomically and return its content hash; `manifest.files` is filled in here."""
    manifest, run, members, digest = sealed(manifest, run, members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in [(MANIFEST, encode(manifest)), *sorted(members.items()), (RUN, encode(run))]:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.create_system = 3
            archive.writestr(info, data, compresslevel=9)
    write_atomic(path, buffer.getvalue())
    return digest


def read(path: Path) -> Bundle:
    """Read a bundle and verify every byte of it against its manifest.

    Raises BundleError naming the file, the member and what differs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            files = {info.filename: _member(path, archive, info) for info in archive.infolist()}
            if len(files) != len(archive.infolist()):
                raise BundleError(str(path), "holds two members of one name", remedy=_GET_A_NEW_ONE)
    except OSError as error:
        raise BundleError(
            str(path), f"cannot be read ({error.strerror or error})", remedy="Give the path of a bundle file."
        ) from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise BundleError(str(path), f"is not a bundle ({error})", remedy=_GET_A_NEW_ONE) from error
    raw = files.pop(MANIFEST, None)
    manifest = _decoded(path, MANIFEST, raw, Manifest)
    run = _decoded(path, RUN, files.pop(RUN, None), RunRecord)
    if manifest.schema_version != SCHEMA_VERSION:
        raise BundleError(
            str(path),
            f"has manifest version {manifest.schema_version}",
            allowed=f"this edgepack reads version {SCHEMA_VERSION}",
            remedy="Use the edgepack that wrote it, or build it again.",
        )
    _verify(path, manifest, files)
    return Bundle(manifest, run, files, hashlib.sha256(raw or b"").hexdigest())


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        if info.file_size > _LARGEST_MEMBER_BYTES:
            raise BundleError(
                f"{path}: {info.filename}",
                f"claims {info.file_size} bytes",
                allowed=f"a member holds at most {_LARGEST_MEMBER_BYTES} bytes",
                remedy=_GET_A_NEW_ONE,
            )
        return archive.read(info)
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        raise BundleError(
            f"{path}: {info.filename}", f"is damaged ({error})", remedy=_GET_A_NEW_ONE
        ) from error


def _decoded(path: Path, name: str, data: bytes | None, kind: type[_T]) -> _T:
    if data is None:
        raise BundleError(str(path), f"has no {name}", remedy=_GET_A_NEW_ONE)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: {name}", f"cannot be read ({error})", remedy=_GET_A_NEW_ONE) from error


def _verify(path: Path, manifest: Manifest, files: dict[str, bytes]) -> None:
    missing, extra = manifest.files.keys() - files.keys(), files.keys() - manifest.files.keys()
    if missing or extra:
        found = f"lacks {', '.join(sorted(missing))}" if missing else f"also holds {', '.join(sorted(extra))}"
        raise BundleError(str(path), found, allowed="its manifest lists every member", remedy=_GET_A_NEW_ONE)
    for name, data in files.items():
        digest = hashlib.sha256(data).hexdigest()
        if digest != manifest.files[name].sha256:
            raise BundleError(
                f"{path}: {name}",
                f"has sha256 {digest[:16]}…",
                allowed=f"the manifest says {manifest.files[name].sha256[:16]}…",
                remedy=_GET_A_NEW_ONE,
            )
    for name in (manifest.model_file, "goldens.json", "vocabulary.json"):
        if name not in files:
            raise BundleError(str(path), f"has no {name}", remedy=_GET_A_NEW_ONE)
