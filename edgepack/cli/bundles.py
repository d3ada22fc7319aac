"""`check`, `inspect`, `report`: what was built, read again."""

from pathlib import Path

import click

from edgepack.cli.options import EXISTING, json_option
from edgepack.errors import EXIT_NOT_WITHIN_BUDGET, EXIT_WITHIN_BUDGET


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=EXISTING)
@click.option("--budget", type=EXISTING, help="TOML file with a [budget] to judge by.")
@click.option("--baseline", type=EXISTING, help="An older bundle to compare with.")
@click.option("--no-run", is_flag=True, help="Do not re-run the goldens.")
@click.option("--junit", type=click.Path(path_type=Path), help="Also write the verdicts as JUnit XML.")
@json_option
def check(
    bundles: tuple[Path, ...],
    budget: Path | None,
    baseline: Path | None,
    no_run: bool,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Re-read, re-judge and re-run bundles; exit 1 if one is not within its budget.

    Example: edgepack check out/*.edgepack --baseline old/web-wasm-mobile.edgepack
    """
    from edgepack import checking

    results = [checking.check(path, budget, baseline, run_goldens=not no_run) for path in bundles]
    if junit is not None:
        checking.write_junit(results, junit)
    click.echo(checking.render(results, as_json), nl=False)
    return EXIT_WITHIN_BUDGET if all(result.passes for result in results) else EXIT_NOT_WITHIN_BUDGET


@click.command()
@click.argument("bundle", type=EXISTING)
@json_option
def inspect(bundle: Path, as_json: bool) -> int:
    """Show what a BUNDLE holds, what it costs and how it was judged.

    Example: edgepack inspect out/android-arm64-mid.edgepack
    """
    from edgepack import checking

    click.echo(checking.render_bundle(bundle, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@click.command()
@click.argument("folder", type=EXISTING)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "html", "json", "junit"]),
    default="text",
    show_default=True,
)
@json_option
def report(folder: Path, style: str, as_json: bool) -> int:
    """Render the report of a finished build again, from the report.json in FOLDER.

    Example: edgepack report out --format markdown
    """
    from edgepack.report import files

    click.echo(files.render(folder, "json" if as_json else style), nl=False)
    return EXIT_WITHIN_BUDGET
