"""The folder of an app that is edgepack's own: written whole or not at all, changed by nobody else.

`edgepack.json` inside it records the SHA-256 of every file, so that a local change is seen before it is lost.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Literal

import msgspec

from edgepack import __version__
from edgepack.errors import ConfigError, LimitError

RECORD = "edgepack.json"
Change = Literal["written", "updated", "unchanged", "removed"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the folder; `files` maps relative paths to their SHA-256, the record apart."""

    edgepack_version: str
    target: str
    content_hash: str
    files: dict[str, str]


def planned(folder: Path, files: dict[str, bytes]) -> Change:
    """Say what `put` would do. Raises ConfigError when the folder is not edgepack's, or was changed."""
    record = _unchanged_record(folder)
    if record is None:
        return "written"
    same = record.edgepack_version == __version__ and record.files == _hashes(files)
    return "unchanged" if same else "updated"


def put(folder: Path, files: dict[str, bytes], *, target: str, content_hash: str) -> Change:
    """Make `files` (relative path -> bytes) the folder's whole content, in one rename.

    Raises ConfigError as `planned`, LimitError when the files cannot be written; the folder is then as
    it was.
    """
    change = planned(folder, files)
    if change == "unchanged":
        return change
    record = Record(
        edgepack_version=__version__, target=target, content_hash=content_hash, files=_hashes(files)
    )
    encoded = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=1) + b"\n"
    _replace(folder, files | {RECORD: encoded})
    return change


def remove(folder: Path) -> Change:
    """Remove the folder. Raises ConfigError as `must_be_ours`, LimitError when it cannot be removed."""
    must_be_ours(folder)
    _replace(folder, None)
    return "removed"


def must_be_ours(folder: Path) -> None:
    """Raise ConfigError when there is no folder of edgepack's, or when it was changed."""
    if _unchanged_record(folder) is None:
        raise ConfigError(str(folder), "is not there", remedy="Nothing was embedded here; check --into.")


def _hashes(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}


def _unchanged_record(folder: Path) -> Record | None:
    """Return the folder's record, None when there is no folder or an empty one."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise _not_ours(folder, "is no folder of its own")
    if not folder.exists() or not any(folder.iterdir()):
        return None
    try:
        record = msgspec.json.decode((folder / RECORD).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_ours(folder, f"holds files and no readable {RECORD}") from error
    if different := _differences(folder, record):
        raise ConfigError(
            str(folder),
            f"was changed since it was embedded: {different}",
            allowed="edgepack alone writes in it",
            remedy="Move your changes out of the folder, delete it, and embed again.",
        )
    return record


def _not_ours(folder: Path, found: str) -> ConfigError:
    return ConfigError(
        str(folder),
        found,
        allowed="edgepack embeds into a folder that it wrote itself, or that is new",
        remedy="Move what is there, or embed into another app.",
    )


def _differences(folder: Path, record: Record) -> str:
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    there.pop(RECORD)
    gone, new = sorted(record.files.keys() - there.keys()), sorted(there.keys() - record.files.keys())
    edited = [
        name
        for name, digest in sorted(record.files.items())
        if name in there and hashlib.sha256(there[name].read_bytes()).hexdigest() != digest
    ]
    found = [("edited", edited), ("missing", gone), ("added", new)]
    return "; ".join(f"{what} {', '.join(names[:3])}{_more(names)}" for what, names in found if names)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


def _replace(folder: Path, files: dict[str, bytes] | None) -> None:
    """Put `files` in the place of the folder's content, or nothing where they are None."""
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _swap(folder, files, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise LimitError(
            str(folder),
            f"could not be changed ({error.strerror or error}); it is as it was",
            remedy="Make room, or correct the permissions, and run the same command again.",
        ) from error


def _swap(folder: Path, files: dict[str, bytes] | None, scratch: Path) -> None:
    fresh, old = scratch / "new", scratch / "old"
    for name, data in (files or {}).items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    try:
        if folder.exists():
            folder.rename(old)
        if files is not None:
            fresh.rename(folder)
    except BaseException:  # a signal between the two renames, too
        if old.exists():
            old.rename(folder)
        raise
