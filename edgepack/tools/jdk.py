"""A Java compiler and machine, which run an Android bundle's code for its certificate: optional."""

import shutil
from pathlib import Path
from typing import NamedTuple

from edgepack import proc
from edgepack.errors import EdgepackError, ToolError
from edgepack.tools import Tool

_REMEDY = "Install a JDK, version 8 or later (Debian: `apt-get install openjdk-17-jdk-headless`)."


class Jdk(NamedTuple):
    """The two programs."""

    javac: Path
    java: Path


def locate() -> Jdk:
    """Return the programs on the PATH. Raises ToolError when one is missing."""
    found = {name: shutil.which(name) for name in Jdk._fields}
    for name, path in found.items():
        if path is None:
            raise ToolError(name, "is not installed", remedy=_REMEDY)
    return Jdk(**{name: Path(path) for name, path in found.items() if path})


def is_there() -> bool:
    """Whether a JDK can be had."""
    try:
        locate()
    except ToolError:
        return False
    return True


def status() -> list[Tool]:
    """Return whether there is a JDK."""
    try:
        path = str(locate().javac)
        version = proc.run([path, "-version"], deadline_s=30)
        told = (version.stdout.decode(errors="replace") or version.stderr_tail).strip()
    except EdgepackError:
        path, told = "", ""
    return [
        Tool(
            name="JDK (optional)",
            path=path or None,
            version=told.removeprefix("javac "),
            disables="the row of the app's own code in an Android bundle's certificate",
            remedy=_REMEDY,
            optional=True,
        )
    ]
