"""The stages of a build, each a function of hashed inputs whose result is kept in the store.

A stage names in its inputs everything that its result depends on: earlier results by their digest,
settings, the sources of the rooms it runs, and the versions of the libraries that shape it. Heavy
imports stand inside the makers, so that a build with nothing to do loads none of them.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from edgepack.config import Config
from edgepack.errors import DataError
from edgepack.store import Store
from edgepack.tools import Tell


class Place(NamedTuple):
    """Where a build stands: configuration, the folder that its paths are relative to, store, progress."""

    config: Config
    folder: Path
    store: Store
    tell: Tell


def named_in_config(folder: Path, key: str, name: str, *, is_folder: bool = False) -> Path:
    """Return the file or folder `name` that `key` of edgepack.toml gives, relative to `folder`.

    Raises DataError when it is not there.
    """
    path = (folder / name).resolve()
    if path.is_dir() if is_folder else path.is_file():
        return path
    raise DataError(
        f"{key} {name}",
        f"there is no such {'folder' if is_folder else 'file'}",
        allowed=f"paths are relative to {folder.resolve()}",
        remedy=f"Correct {key} in edgepack.toml.",
    )


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, "absent" for one that is not there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
