"""A content-addressed store of stage results: atomic, locked, hash-checked on every read.

A result lives in `ROOT/STAGE/KEY/`, where KEY is the SHA-256 of the stage's inputs. While it is being
made it is `KEY.work/`, which a killed run leaves behind and the next one goes on from.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import NamedTuple

from filelock import FileLock

_FILES = "_files.json"
_SOURCES = (".py", ".c", ".h", ".mjs", ".html")


class Kept(NamedTuple):
    """A finished result: its folder, and the SHA-256 over its files (what later stages key on)."""

    path: Path
    digest: str


class Store:
    """Stage results under `root`; `made` and `kept` list what this process produced and reused."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[str] = []
        self.kept: list[str] = []

    def produce(self, stage: str, inputs: Mapping[str, object], make: Callable[[Path], None]) -> Kept:
        """Return the result of `stage` for `inputs`, calling `make(folder)` only if it is not there.

        `make` writes into an existing folder, which may hold what a killed attempt left. `inputs`
        must be JSON: everything that the result depends on, earlier stages by their digest.
        """
        key = digest_of(inputs)[:32]
        final = self.root / stage / key
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_suffix(".lock")):
            if final.is_dir():
                digest = _verified(final)
                if digest is not None:
                    self.kept.append(f"{stage}/{key}")
                    return Kept(final, digest)
                shutil.rmtree(final)
            work = final.with_suffix(".work")
            work.mkdir(exist_ok=True)
            make(work)
            digest = _seal(work)
            os.replace(work, final)
            self.made.append(f"{stage}/{key}")
            return Kept(final, digest)


def digest_of(value: object) -> str:
    """Return the SHA-256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old bytes or the new ones and nothing between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


@cache
def source_fingerprint(*rooms: str) -> str:
    """Return a hash over the sources of edgepack's `rooms`, so that changed code makes new keys."""
    base = Path(__file__).parent
    hashes = []
    for room in sorted(rooms):
        place = base / room
        if not place.exists():
            place = base.parent / room
        files = sorted(f for f in place.rglob("*") if f.suffix in _SOURCES) if place.is_dir() else [place]
        hashes += [(str(f.relative_to(place.parent)), sha256_of(f)) for f in files]
    return digest_of(hashes)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _FILES)
    return {str(path.relative_to(folder)): sha256_of(path) for path in files}


def _seal(folder: Path) -> str:
    hashes = _hashes(folder)
    write_atomic(folder / _FILES, json.dumps(hashes, sort_keys=True).encode())
    return digest_of(hashes)


def _verified(folder: Path) -> str | None:
    try:
        recorded = json.loads((folder / _FILES).read_bytes())
    except (OSError, ValueError):
        return None
    return digest_of(recorded) if recorded == _hashes(folder) else None
