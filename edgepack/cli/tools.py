"""`doctor`, `setup`, `targets`: what is there, and what can be packed for."""

from pathlib import Path

import click

from edgepack.cli.options import config_option, json_option, loaded
from edgepack.errors import EXIT_WITHIN_BUDGET


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Say which tools are there, which are missing, and what that disables.

    Example: edgepack doctor
    """
    from edgepack.health import all_tools, render_tools

    tools = all_tools()
    click.echo(render_tools(tools, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@click.command()
@click.option("--only", type=click.Choice(["arm", "web"]), help="Fetch the tools of one family only.")
def setup(only: str | None) -> int:
    """Fetch what measuring needs: qemu, ARM libraries, onnxruntime-web, Chromium.

    Works without root; finished pieces are kept. Example: edgepack setup
    """
    from edgepack.health import fetch_tools, render_tools
    from edgepack.terminal import Terminal

    with Terminal() as tell:
        tools = fetch_tools(only, tell)
    click.echo(render_tools(tools, as_json=False), nl=False)
    return EXIT_WITHIN_BUDGET


@click.command()
@config_option
@click.option(
    "--devices", "lists_devices", is_flag=True, help="List single devices, each a target by its name."
)
@json_option
def targets(config_path: Path | None, lists_devices: bool, as_json: bool) -> int:
    """List the devices that can be packed for, with their runtimes and default budgets.

    Example: edgepack targets --devices
    """
    from edgepack.config import beside
    from edgepack.latency.devices import load_devices
    from edgepack.profiles import load_profiles
    from edgepack.report.tables import render_devices, render_targets

    if lists_devices:
        click.echo(render_devices(load_devices(), as_json), nl=False)
        return EXIT_WITHIN_BUDGET
    path, config = loaded(config_path)
    folder = beside(path, config.targets.folder) if config.targets.folder else None
    click.echo(render_targets(load_profiles(folder), as_json), nl=False)
    return EXIT_WITHIN_BUDGET
