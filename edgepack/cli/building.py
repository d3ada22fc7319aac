"""`data`, `train`, `build`: from a log to bundles."""

from pathlib import Path

import click

from edgepack.cli.options import EXISTING, config_option, json_option, loaded, store_option
from edgepack.errors import EXIT_NOT_WITHIN_BUDGET, EXIT_WITHIN_BUDGET


@click.command()
@click.argument("name", required=False)
@click.option("--from", "source", type=EXISTING, help="Your copy of the public set NAME.")
@config_option
@store_option
@json_option
def data(name: str | None, source: Path | None, config_path: Path | None, store: Path, as_json: bool) -> int:
    """Read and clean the log and say what was dropped; or take in a public set by NAME.

    Example: edgepack data online-retail --from online_retail.parquet
    """
    from edgepack import build
    from edgepack.report.tables import render_data
    from edgepack.terminal import Terminal

    if name is None:
        path, config = loaded(config_path)
        with Terminal() as tell:
            found = build.data_facts(path, config, store, tell)
        click.echo(render_data(found, as_json), nl=False)
        return EXIT_WITHIN_BUDGET
    from edgepack.data import public

    click.echo(public.describe(name) if source is None else public.take(name, source, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@click.command()
@config_option
@store_option
@json_option
def train(config_path: Path | None, store: Path, as_json: bool) -> int:
    """Train the float model and hold it against the baselines, without compressing anything.

    With a [teacher] that is the teacher, and the model that it taught stands below.

    Example: edgepack train -c edgepack.toml
    """
    from edgepack import build
    from edgepack.report.tables import render_rows
    from edgepack.terminal import Terminal

    path, config = loaded(config_path)
    with Terminal() as tell:
        rows = build.float_rows(path, config, store, tell)
    click.echo(render_rows(rows, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@click.command(name="build")
@config_option
@store_option
@click.option("-t", "--target", "patterns", multiple=True, help="Glob of target names; repeatable.")
@click.option("--plan", is_flag=True, help="Print what would be done and stop.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True)
@click.option("--junit", type=click.Path(path_type=Path), help="Also write the verdicts as JUnit XML.")
@json_option
def build_command(
    config_path: Path | None,
    store: Path,
    patterns: tuple[str, ...],
    plan: bool,
    out: Path,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Turn the log and the model into measured, budget-checked bundles, and a report.

    Example: edgepack build -t 'android-*' --out out
    """
    from edgepack import build, planning
    from edgepack.report import files, text, to_json
    from edgepack.terminal import Terminal

    path, config = loaded(config_path)
    planned = planning.plan(path, config, patterns)
    if plan:
        click.echo(planning.render_plan(planned, as_json), nl=False)
        return EXIT_WITHIN_BUDGET
    with Terminal() as tell:
        tell.say(planning.render_plan(planned, as_json=False))
        result = build.run(planned, store, out, tell)
    files.write_all(result, out, junit)
    click.echo(to_json(result).decode() if as_json else text.render(result), nl=False)
    return EXIT_WITHIN_BUDGET if result.passes else EXIT_NOT_WITHIN_BUDGET
