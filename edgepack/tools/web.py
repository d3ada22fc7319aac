"""Node, Chromium and the pinned runtimes: what running and measuring a web artifact needs."""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from edgepack import proc
from edgepack.errors import EdgepackError, ToolError
from edgepack.tools import Tell, Tool, home
from edgepack.tools.web_runtimes import PACKAGES, fetch_runtime, locate_runtime, runtime_bytes

_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_DEBIAN_PACKAGES = {"chromium": "chromium", "node": "nodejs", "npm": "npm"}
_SETUP = "Run `edgepack setup`"


def locate_node() -> Path:
    """Return the `node` program. Raises ToolError when there is none."""
    found = shutil.which("node") or _playwrights_node()
    return Path(found) if found else _missing("node", "Or install Node 18 or later.")


def locate_chromium() -> Path:
    """Return the Chromium program: $EDGEPACK_CHROMIUM, the system's, or a fetched one.

    Raises ToolError when there is none.
    """
    own = os.environ.get("EDGEPACK_CHROMIUM")
    unpacked = home() / "web" / "chromium" / "chromium"
    named = (shutil.which(name) for name in _CHROMIUM_NAMES)
    found = own or next(filter(None, named), None) or (unpacked if unpacked.is_file() else None)
    return (
        Path(found)
        if found
        else _missing("chromium", "Or set EDGEPACK_CHROMIUM to a Chrome or Chromium program.")
    )


def locate_playwright() -> Path:
    """Return the folder of the playwright package. Raises ToolError when it is not installed."""
    spec = importlib.util.find_spec("playwright")
    if spec is None or spec.origin is None:
        raise ToolError("playwright", "is not installed", remedy="Install `edgepack[run]`.")
    return Path(spec.origin).parent


def status() -> list[Tool]:
    """List the web tools, found or not; changes nothing."""
    both, browser = "web-wasm targets", "load, latency and memory of web-wasm targets"
    return [
        *(_runtime(name, package.version) for name, package in PACKAGES.items()),
        _tool("node", locate_node, both),
        _tool("chromium", locate_chromium, browser),
        _tool("playwright", locate_playwright, browser),
    ]


def fetch(tell: Tell) -> None:
    """Bring what is missing: system programs by apt (as root) or unpacked, the runtimes by npm.

    Raises ToolError, naming the remedy, for a part that cannot be had.
    """
    steps = 1 + 2 * len(PACKAGES)
    tell("chromium and node", 0, steps)
    _fetch_programs()
    for done, (name, package) in enumerate(PACKAGES.items()):
        tell(f"{name} {package.version}", 1 + 2 * done, steps)
        runtime = fetch_runtime(name)
        tell(f"download sizes of {name}", 2 + 2 * done, steps)
        with contextlib.suppress(ToolError):  # without brotli there is nothing to build for the web either
            runtime_bytes(runtime.files.values())
    tell("web tools", steps, steps)


def _missing(program: str, otherwise: str) -> Path:
    raise ToolError(program, "is not installed", remedy=f"{_SETUP}. {otherwise}")


def _playwrights_node() -> str | None:
    # The playwright wheel carries a whole Node; it does where the system has none.
    spec = importlib.util.find_spec("playwright")
    node = Path(spec.origin).parent / "driver" / "node" if spec and spec.origin else None
    return str(node) if node and node.is_file() else None


def _runtime(name: str, version: str) -> Tool:
    try:
        path, remedy = str(locate_runtime(name).folder), ""
    except ToolError as error:
        path, remedy = None, error.remedy
    return Tool(
        name=f"{name} {version}",
        path=path,
        version=version if path else "",
        disables=f"targets that run {name}",
        remedy=remedy,
    )


def _tool(name: str, locate_one: Callable[[], Path], disables: str) -> Tool:
    try:
        path = locate_one()
    except ToolError as error:
        return Tool(name=name, path=None, version="", disables=disables, remedy=error.remedy)
    return Tool(name=name, path=str(path), version=_version(name, path), disables=disables, remedy="")


def _version(name: str, path: Path) -> str:
    if name == "playwright":
        from importlib.metadata import version

        return version("playwright")
    try:
        return proc.run([path, "--version"], deadline_s=20).stdout.decode("utf-8", "replace").strip()
    except EdgepackError:
        return "unknown"


def _fetch_programs() -> None:
    wanted = [name for name in ("chromium", "npm") if not _have(name)]
    if not wanted:
        return
    if os.geteuid() == 0:
        packages = [_DEBIAN_PACKAGES[name] for name in wanted]
        words = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        proc.must(words, deadline_s=900, remedy=_by_hand(wanted))
    elif wanted == ["chromium"]:
        from edgepack.tools.debian import unpack_program

        unpack_program("chromium", "usr/lib/chromium/chromium", home() / "web" / "chromium")
    else:
        raise ToolError("npm", "is not installed", remedy=_by_hand(wanted))


def _have(program: str) -> bool:
    if program != "chromium":
        return shutil.which(program) is not None
    try:
        return locate_chromium().is_file()
    except ToolError:
        return False


def _by_hand(programs: list[str]) -> str:
    packages = " ".join(_DEBIAN_PACKAGES[name] for name in programs)
    return f"Have an administrator run `apt-get install --no-install-recommends {packages}`."
