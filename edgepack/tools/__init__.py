"""External programs and packages that measuring needs: where they are, how to fetch them.

Each module covers one engine: `status()` lists its parts without side effects, `fetch(tell)` brings
what is missing into `home()`, `locate()` returns the paths or raises ToolError.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

Tell = Callable[[str, int, int], None]
"""Progress: what is being done, steps done, steps in all (0 = unknown)."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One external part: `path` is None when it is missing; `disables` says what then cannot be done.

    What is `optional` may be missing without anything being amiss.
    """

    name: str
    path: str | None
    version: str
    disables: str
    remedy: str
    optional: bool = False


def home() -> Path:
    """Return the folder that fetched tools live in: $EDGEPACK_HOME, else the user's cache folder."""
    from platformdirs import user_cache_path

    own = os.environ.get("EDGEPACK_HOME")
    return Path(own) if own else user_cache_path("edgepack")
