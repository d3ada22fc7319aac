"""The stages of a build, each a function of hashed inputs whose result is kept in the store.

A stage names in its inputs everything that its result depends on: earlier results by their digest,
settings, the sources of the rooms it runs, and the versions of the libraries that shape it. Heavy
imports stand inside the makers, so that a build with nothing to do loads none of them.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from edgepack.config import Config
from edgepack.store import Store
from edgepack.tools import Tell


class Place(NamedTuple):
    """Where a build stands: configuration, the folder that its paths are relative to, store, progress."""

    config: Config
    folder: Path
    store: Store
    tell: Tell


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, "absent" for one that is not there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
