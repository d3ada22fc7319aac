"""`calibrate` and its commands: the device model."""

from pathlib import Path

import click

from edgepack.cli.options import FILE, FOLDER, json_option
from edgepack.errors import EXIT_WITHIN_BUDGET


@click.group(invoke_without_command=True)
@click.option("--params", type=FOLDER, help="Folder of ncnn network files: count what is not counted yet.")
@click.option(
    "--report", "shows_errors", is_flag=True, help="Print the errors on what a fit never saw; freeze nothing."
)
@json_option
@click.pass_context
def calibrate(context: click.Context, params: Path | None, shows_errors: bool, as_json: bool) -> int:
    """Fit the device model to counts and published latencies, or predict a network with it.

    Example: edgepack calibrate --report
    """
    if context.invoked_subcommand is not None:
        return EXIT_WITHIN_BUDGET
    from edgepack import calibrating
    from edgepack.terminal import Terminal

    with Terminal() as tell:
        found = calibrating.calibrate(params, tell, shows_errors=shows_errors)
    click.echo(calibrating.render(found, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


_OWN_DEVICES = Path("devices")


@calibrate.command()
@click.option("--params", "param", required=True, type=FILE, help="A .param file of ncnn.")
@click.option("--input", "shape", required=True, help="Width,height,channels of its input.")
@click.option("--device", required=True, help="A device of targets/calibration/devices.toml, or your own.")
@click.option(
    *("--devices", "folder"),
    type=click.Path(file_okay=False, path_type=Path),
    default=_OWN_DEVICES,
    show_default=True,
    help="Folder of your own devices.",
)
@json_option
def predict(param: Path, shape: str, device: str, folder: Path, as_json: bool) -> int:
    """Predict the single-thread latency of a network that the fit never saw.

    Example: edgepack calibrate predict --params net.param --input 224,224,3 --device raspberry-pi-4
    """
    from edgepack import calibrating
    from edgepack.terminal import Terminal

    numbers = shape.split(",")
    if len(numbers) != 3 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise click.BadParameter(f"'{shape}' is not WIDTH,HEIGHT,CHANNELS", param_hint="--input")
    width, height, channels = map(int, numbers)
    with Terminal() as tell:
        latency = calibrating.predict(param, (width, height, channels), device, tell, folder)
    click.echo(calibrating.render_latency(latency, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@calibrate.command()
@click.argument("name")
@click.option("--core", required=True, help="Its fastest core, such as Cortex-A76.")
@click.option("--clock-mhz", required=True, type=int, help="The core's clock.")
@click.option("--runs", required=True, type=FILE, help="CSV file: file,ms and, for .param files, input.")
@click.option("--params", "models", type=FOLDER, help="Folder of the models, else that of the CSV file.")
@click.option(
    *("--out", "folder"),
    type=click.Path(file_okay=False, path_type=Path),
    default=_OWN_DEVICES,
    show_default=True,
    help="Folder to write to.",
)
@json_option
def device(
    name: str, core: str, clock_mhz: int, runs: Path, models: Path | None, folder: Path, as_json: bool
) -> int:
    """Make a profile of a device at hand from a few runs on it, single-threaded.

    Example: edgepack calibrate device my-phone --core Cortex-A76 --clock-mhz 2400 --runs runs.csv
    """
    from edgepack import calibrating
    from edgepack.calibrate.own import described
    from edgepack.terminal import Terminal

    with Terminal() as tell:
        added = calibrating.add_device(described(name, core, clock_mhz), runs, models, folder, tell)
    click.echo(calibrating.render_own(added, as_json), nl=False)
    return EXIT_WITHIN_BUDGET
