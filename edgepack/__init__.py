"""edgepack: put a Keras recommender on phones and into browsers, measured and within budget.

The names below are the public library; each is loaded when it is first asked for, so that importing
edgepack costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepack.build import run
    from edgepack.bundle.archive import read as read_bundle
    from edgepack.checking import check
    from edgepack.config import load_config
    from edgepack.errors import EdgepackError
    from edgepack.planning import plan
    from edgepack.profiles import load_profiles

__version__ = "0.1.0"

__all__ = [
    "EdgepackError",
    "check",
    "load_config",
    "load_profiles",
    "plan",
    "read_bundle",
    "run",
]

_HOMES = {
    "EdgepackError": ("edgepack.errors", "EdgepackError"),
    "check": ("edgepack.checking", "check"),
    "load_config": ("edgepack.config", "load_config"),
    "load_profiles": ("edgepack.profiles", "load_profiles"),
    "plan": ("edgepack.planning", "plan"),
    "read_bundle": ("edgepack.bundle.archive", "read"),
    "run": ("edgepack.build", "run"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'edgepack' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
