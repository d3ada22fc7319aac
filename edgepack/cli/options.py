"""What several commands share: kinds of arguments, options, the configuration that is meant."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgepack.config import Config

EXISTING = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config."""
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=None,
        help="edgepack.toml; without it ./edgepack.toml, else the embedded synthetic shop.",
    )(command)


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --store."""
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        default=Path(".edgepack"),
        show_default=True,
        help="Folder of finished stages; a second build takes from it what did not change.",
    )(command)


def loaded(config_path: Path | None) -> "tuple[Path, Config]":
    """Return the configuration that a command works with, and where it stands."""
    from edgepack.config import DEFAULT, load_config

    own = Path("edgepack.toml")
    path = config_path or (own if own.exists() else DEFAULT)
    return path, load_config(path)
