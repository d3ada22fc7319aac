"""`embed`: a bundle into an app."""

from pathlib import Path

import click

from edgepack.cli.options import FILE, FOLDER, json_option
from edgepack.errors import EXIT_WITHIN_BUDGET


@click.command()
@click.argument("bundle", type=FILE, required=False)
@click.option(
    "--into",
    "app",
    type=FOLDER,
    required=True,
    help="The app; one folder in it is written: edgepack/, or edgemodel/ of an Android project.",
)
@click.option(
    "--platform", type=click.Choice(["web", "android"]), default="web", show_default=True, help="Kind of app."
)
@click.option(
    "--compare",
    "compared",
    type=FILE,
    help="A second web bundle, say the float model's, that a page loads on demand to show both lists.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and stop.")
@click.option("--remove", "removes", is_flag=True, help="Take edgepack's folder out of the app again.")
@json_option
def embed(
    bundle: Path | None,
    app: Path,
    platform: str,
    compared: Path | None,
    dry_run: bool,
    removes: bool,
    as_json: bool,
) -> int:
    """Write a verified BUNDLE into an app, as a typed module that checks itself; run again to update.

    Example: edgepack embed out/android-arm64-mid.edgepack --into MyShop --platform android
    """
    from edgepack import embedding

    if (bundle is None) != removes or (removes and compared):
        raise click.UsageError("Give a BUNDLE to embed, or --remove without any.")
    done = (
        embedding.embed(bundle, app, platform, compared_path=compared, dry_run=dry_run)
        if bundle is not None
        else embedding.remove(app, platform, dry_run=dry_run)
    )
    click.echo(embedding.render(done, as_json), nl=False)
    return EXIT_WITHIN_BUDGET
