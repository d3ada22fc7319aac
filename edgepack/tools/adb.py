"""adb, which speaks to a phone on a cable: optional, for most of edgepack's work needs no device."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

from edgepack import proc
from edgepack.errors import ToolError
from edgepack.tools import Tool

_REMEDY = "Install it (Debian: `apt-get install adb`), or set ANDROID_HOME to the folder of Android's SDK."


def find() -> Path:
    """Return the path of adb: on the PATH, else in Android's SDK. Raises ToolError when there is none."""
    found = _found()
    if found is None:
        raise ToolError("adb", "is not installed; it speaks to the phone", remedy=_REMEDY)
    return found


def status() -> list[Tool]:
    """Return whether adb is there, without starting its server."""
    found = _found()
    return [
        Tool(
            name="adb (optional)",
            path=str(found) if found else None,
            version=_version(found) if found else "",
            disables="measuring on a phone (`measure --device`)",
            remedy=_REMEDY,
            optional=True,
        )
    ]


def _found() -> Path | None:
    sdk = os.environ.get("ANDROID_HOME", "")
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), f"{sdk}/platform-tools" if sdk else ""])
    program = shutil.which("adb", path=places.rstrip(os.pathsep))
    return Path(program) if program else None


def _version(adb: Path) -> str:
    # "Android Debug Bridge version 1.0.41", then "Version 29.0.6-debian": the second is the release.
    words = proc.run([adb, "version"], deadline_s=30).stdout.decode(errors="replace").split()
    return next((word for before, word in pairwise(words) if before == "Version"), "")
