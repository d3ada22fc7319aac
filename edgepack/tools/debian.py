"""Debian packages without root: downloaded with an apt state of our own and unpacked, not installed."""

import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgepack import proc
from edgepack.store import sha256_of, write_atomic

DEADLINE_S = 900
_INSTALLED = Path("/var/lib/dpkg/status")
_LAUNCHER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export LD_LIBRARY_PATH
exec "$here/root/{program}" "$@"
"""


def apt(state: Path, options: Mapping[str, str | Path]) -> list[str | Path]:
    """Return the beginning of an apt-get command that keeps to the folder `state`; any user may run it."""
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (state / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    own: dict[str, str | Path] = {
        "Dir::State": state,
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",  # the user that apt would change to cannot read a private folder
        "Acquire::Languages": "none",
    }
    pairs = (own | dict(options)).items()
    return ["apt-get", "-qq", *(word for key, value in pairs for word in ("-o", f"{key}={value}"))]


def unpack(folder: Path, into: Path, remedy: str) -> dict[str, str]:
    """Unpack every package in `folder` into another; return the packages' SHA-256 by file name.

    Raises ToolError with `remedy` when dpkg fails.
    """
    packages = sorted(folder.glob("*.deb"))
    for package in packages:
        proc.must(["dpkg", "-x", package, into], deadline_s=DEADLINE_S, remedy=remedy)
    return {package.name: sha256_of(package) for package in packages}


def unpack_program(package: str, program: str, folder: Path, *, installed: Path = _INSTALLED) -> Path:
    """Bring `package` and whatever it needs that `installed` (dpkg's list) lacks into `folder`.

    Returns the launcher `folder`/`package`, which starts the package's file `program` with the unpacked
    libraries. apt takes the host's sources.

    Raises ToolError when apt or dpkg is missing or fails, LimitError after a quarter of an hour.
    """
    remedy = f"Have an administrator run `apt-get install --no-install-recommends {package}`."
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{package}-") as scratch:
        made, state = Path(scratch) / "made", Path(scratch) / "apt"
        (made / "root").mkdir(parents=True)
        begin = apt(state, {"Dir::State::status": installed})
        wanted = ["install", "-y", "--no-install-recommends", "--download-only", package]
        for words in (["update"], wanted):
            proc.must([*begin, *words], deadline_s=DEADLINE_S, remedy=remedy)
        unpack(state / "archives", made / "root", remedy)
        _write_launcher(made, package, program)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    return folder / package


def _write_launcher(made: Path, package: str, program: str) -> None:
    libraries = sorted({path.parent for path in (made / "root").rglob("lib*.so*")})
    places = ":".join(f"$here/{path.relative_to(made)}" for path in libraries)
    launcher = made / package
    write_atomic(launcher, _LAUNCHER.format(libraries=places, program=program).encode())
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
