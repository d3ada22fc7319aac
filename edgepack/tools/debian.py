"""A Debian program without root: it and the libraries that the host lacks are downloaded and unpacked."""

import shutil
import stat
import tempfile
from pathlib import Path

from edgepack import proc
from edgepack.errors import ToolError
from edgepack.store import write_atomic

_DEADLINE_S = 900
_INSTALLED = Path("/var/lib/dpkg/status")
_LAUNCHER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
LD_LIBRARY_PATH="{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export LD_LIBRARY_PATH
exec "$here/root/{program}" "$@"
"""


def unpack_program(package: str, program: str, folder: Path, *, installed: Path = _INSTALLED) -> Path:
    """Bring `package` and whatever it needs that `installed` (dpkg's list) lacks into `folder`.

    Returns the launcher `folder`/`package`, which starts the package's file `program` with the unpacked
    libraries. apt gets a state of its own and the host's sources, so that any user may do it.

    Raises ToolError when apt or dpkg is missing or fails, LimitError after a quarter of an hour.
    """
    remedy = f"Have an administrator run `apt-get install --no-install-recommends {package}`."
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{package}-") as scratch:
        made, state = Path(scratch) / "made", Path(scratch) / "apt"
        (made / "root").mkdir(parents=True)
        apt = _private_apt(state, installed)
        _must([*apt, "update"], remedy)
        _must([*apt, "install", "-y", "--no-install-recommends", "--download-only", package], remedy)
        for deb in sorted((state / "archives").glob("*.deb")):
            _must(["dpkg", "-x", deb, made / "root"], remedy)
        _write_launcher(made, package, program)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    return folder / package


def _private_apt(state: Path, installed: Path) -> list[str | Path]:
    (state / "lists" / "partial").mkdir(parents=True)
    (state / "archives" / "partial").mkdir(parents=True)
    options = {
        "Dir::State": state,
        "Dir::State::status": installed,
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",  # the user that apt would change to cannot read a private folder
        "Acquire::Languages": "none",
    }
    return ["apt-get", "-qq", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]


def _write_launcher(made: Path, package: str, program: str) -> None:
    libraries = sorted({path.parent for path in (made / "root").rglob("lib*.so*")})
    places = ":".join(f"$here/{path.relative_to(made)}" for path in libraries)
    launcher = made / package
    write_atomic(launcher, _LAUNCHER.format(libraries=places, program=program).encode())
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _must(argv: list[str | Path], remedy: str) -> None:
    done = proc.run(argv, deadline_s=_DEADLINE_S, remedy=remedy)
    if done.returncode:
        last = (done.stderr_tail.splitlines() or ["no message"])[-1]
        raise ToolError(Path(argv[0]).name, f"failed with status {done.returncode} ({last})", remedy=remedy)
