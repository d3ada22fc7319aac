"""The report's files: written together, rendered again from report.json."""

from collections.abc import Callable
from pathlib import Path

from edgepack.errors import ConfigError
from edgepack.report import from_json, html, junit, markdown, text, to_json
from edgepack.results import BuildResult
from edgepack.store import write_atomic

JSON_NAME = "report.json"


def write_all(result: BuildResult, out: Path, junit_path: Path | None = None) -> None:
    """Write report.json, report.md and report.html into `out`, and JUnit XML where asked for."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "report.html", html.render(result).encode())
    write_atomic(out / "report.md", markdown.render(result).encode())
    write_atomic(out / JSON_NAME, to_json(result))
    if junit_path is not None:
        junit_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(junit_path, junit.render(result).encode())


def load(folder: Path) -> BuildResult:
    """Read report.json of a finished build. Raises ConfigError when there is none, BundleError
    when it is damaged."""
    path = folder / JSON_NAME if folder.is_dir() else folder
    try:
        return from_json(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({error.strerror})", remedy="Give the --out folder of a build."
        ) from error


def render(folder: Path, style: str) -> str:
    """Return the report of `folder` as text, markdown, html, json or junit."""
    result = load(folder)
    renderers: dict[str, Callable[[BuildResult], str]] = {
        "text": text.render,
        "markdown": markdown.render,
        "html": html.render,
        "junit": junit.render,
        "json": lambda value: to_json(value).decode(),
    }
    return renderers[style](result)
