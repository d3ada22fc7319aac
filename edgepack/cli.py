"""The command line: a command parses, calls one function, renders, and returns an exit code.

Results go to stdout, progress and errors to stderr. Heavy imports stand inside the commands, so that
`edgepack --help` loads click and nothing else.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from edgepack import __version__
from edgepack.errors import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_NOT_WITHIN_BUDGET,
    EXIT_TERMINATED,
    EXIT_WITHIN_BUDGET,
    EdgepackError,
    ToolError,
)

if TYPE_CHECKING:
    from edgepack.config import Config

_EXISTING = click.Path(exists=True, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class _Terminated(BaseException):
    """SIGTERM, raised as an exception so that every `finally` runs."""


def main() -> None:
    """Run the command line and exit with the documented code; never a traceback on the terminal."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else EXIT_WITHIN_BUDGET)
    except EdgepackError as error:
        _fail(str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; finished stages are kept, run the same command to go on", EXIT_INTERRUPTED)
    except _Terminated:
        _fail("terminated; finished stages are kept, run the same command to go on", EXIT_TERMINATED)
    except Exception as error:  # noqa: BLE001  the last resort: a bug becomes one sentence and a log
        if package := _not_installed(error):
            _fail(
                f"{package} is not installed; this command needs it. Run "
                "`pip install 'edgepack[build,report]'`, or see `edgepack doctor`.",
                ToolError.exit_code,
            )
        _fail(
            f"internal error: {type(error).__name__}: {error}. The traceback is in {_log_traceback()}; "
            "please report it.",
            EXIT_INTERNAL,
        )


def _not_installed(error: Exception) -> str:
    """Return the package of somebody else's that could not be imported, "" if that is not what happened."""
    name = str(error.name) if isinstance(error, ModuleNotFoundError) else ""
    return "" if name.startswith("edgepack") else name.partition(".")[0]


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _fail(sentence: str, code: int) -> None:
    click.echo(f"edgepack: {sentence}", err=True)
    sys.exit(code)


def _log_traceback() -> Path:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="edgepack-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(traceback.format_exc())
    return Path(log.name)


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        default=None,
        help="edgepack.toml; without it ./edgepack.toml, else the embedded synthetic shop.",
    )(command)


def _store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--store",
        type=click.Path(path_type=Path),
        default=Path(".edgepack"),
        show_default=True,
        help="Folder of finished stages; a second build takes from it what did not change.",
    )(command)


def _loaded(config_path: Path | None) -> "tuple[Path, Config]":
    from edgepack.config import DEFAULT, load_config

    own = Path("edgepack.toml")
    path = config_path or (own if own.exists() else DEFAULT)
    return path, load_config(path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="edgepack")
def cli() -> None:
    """Pack a Keras recommender for phones and browsers: compressed, measured, within budget.

    Start with `edgepack doctor`, then `edgepack build`.

    \b
    Exit codes: 0 within budget, 1 not within budget, 2 usage, 3 configuration, 4 data, 5 tool missing,
    6 conversion, 7 measuring, 8 bundle altered, 9 untrusted, 10 limit hit, 70 internal, 130 Ctrl-C,
    143 SIGTERM.
    """


@cli.command()
@_json_option
def doctor(as_json: bool) -> int:
    """Say which tools are there, which are missing, and what that disables.

    Example: edgepack doctor
    """
    from edgepack.health import all_tools, render_tools

    tools = all_tools()
    click.echo(render_tools(tools, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@cli.command()
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


@cli.command()
@_config_option
@click.option(
    "--devices", "lists_devices", is_flag=True, help="List single devices, each a target by its name."
)
@_json_option
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
    path, config = _loaded(config_path)
    folder = beside(path, config.targets.folder) if config.targets.folder else None
    click.echo(render_targets(load_profiles(folder), as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@cli.command()
@click.argument("name", required=False)
@click.option("--from", "source", type=_EXISTING, help="Your copy of the public set NAME.")
@_config_option
@_store_option
@_json_option
def data(name: str | None, source: Path | None, config_path: Path | None, store: Path, as_json: bool) -> int:
    """Read and clean the log and say what was dropped; or take in a public set by NAME.

    Example: edgepack data online-retail --from online_retail.parquet
    """
    from edgepack import build
    from edgepack.report.tables import render_data
    from edgepack.terminal import Terminal

    if name is None:
        path, config = _loaded(config_path)
        with Terminal() as tell:
            found = build.data_facts(path, config, store, tell)
        click.echo(render_data(found, as_json), nl=False)
        return EXIT_WITHIN_BUDGET
    from edgepack.data import public

    click.echo(public.describe(name) if source is None else public.take(name, source, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@cli.command()
@_config_option
@_store_option
@_json_option
def train(config_path: Path | None, store: Path, as_json: bool) -> int:
    """Train the float model and hold it against the baselines, without compressing anything.

    Example: edgepack train -c edgepack.toml
    """
    from edgepack import build
    from edgepack.report.tables import render_rows
    from edgepack.terminal import Terminal

    path, config = _loaded(config_path)
    with Terminal() as tell:
        rows = build.float_rows(path, config, store, tell)
    click.echo(render_rows(rows, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@cli.command(name="build")
@_config_option
@_store_option
@click.option("-t", "--target", "patterns", multiple=True, help="Glob of target names; repeatable.")
@click.option("--plan", is_flag=True, help="Print what would be done and stop.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True)
@click.option("--junit", type=click.Path(path_type=Path), help="Also write the verdicts as JUnit XML.")
@_json_option
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
    from edgepack import build
    from edgepack.report import files, text, to_json
    from edgepack.terminal import Terminal

    path, config = _loaded(config_path)
    planned = build.plan(path, config, patterns)
    if plan:
        click.echo(build.render_plan(planned, as_json), nl=False)
        return EXIT_WITHIN_BUDGET
    with Terminal() as tell:
        tell.say(build.render_plan(planned, as_json=False))
        result = build.run(planned, store, out, tell)
    files.write_all(result, out, junit)
    click.echo(to_json(result).decode() if as_json else text.render(result), nl=False)
    return EXIT_WITHIN_BUDGET if result.passes else EXIT_NOT_WITHIN_BUDGET


@cli.command()
@click.argument("model", type=_EXISTING)
@click.option("-t", "--target", "pattern", help="Name of the target.")
@click.option("--device", help="A real phone instead: adb:SERIAL, or adb when only one is connected.")
@_json_option
def measure(model: Path, pattern: str | None, device: str | None, as_json: bool) -> int:
    """Measure a .tflite, .onnx or .ort MODEL on a target: bytes, counts or milliseconds, memory.

    Example: edgepack measure model.tflite -t android-arm64-low
    """
    if (pattern is None) == (device is None):
        raise click.UsageError("Name where to measure, one of the two: -t TARGET or --device adb:SERIAL.")
    from edgepack.measuring import measure_file, measure_on_device
    from edgepack.report.tables import render_measurement
    from edgepack.terminal import Terminal

    with Terminal() as tell:
        if pattern is None:
            measurement = measure_on_device(model, str(device), tell)
        else:
            measurement = measure_file(model, pattern, tell)
    click.echo(render_measurement(measurement, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@cli.command()
@click.argument("model", type=_FILE)
@click.option("-t", "--target", "pattern", required=True, help="Name of an arm64 target.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Operators to show.")
@_json_option
def explain(model: Path, pattern: str, top: int, as_json: bool) -> int:
    """Say which operators of a .tflite MODEL cost the instructions and misses on a target, and what is slow.

    Example: edgepack explain model.tflite -t android-arm64-low
    """
    from edgepack.measuring import explain_file
    from edgepack.report import operators
    from edgepack.terminal import Terminal

    with Terminal() as tell:
        target, attribution = explain_file(model, pattern, tell)
    click.echo(operators.render(attribution, target, top, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@cli.group(invoke_without_command=True)
@click.option("--params", type=_FOLDER, help="Folder of ncnn network files: count what is not counted yet.")
@click.option(
    "--report", "shows_errors", is_flag=True, help="Print the errors on what a fit never saw; freeze nothing."
)
@_json_option
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
@click.option("--params", "param", required=True, type=_FILE, help="A .param file of ncnn.")
@click.option("--input", "shape", required=True, help="Width,height,channels of its input.")
@click.option("--device", required=True, help="A device of targets/calibration/devices.toml, or your own.")
@click.option(
    *("--devices", "folder"),
    type=click.Path(file_okay=False, path_type=Path),
    default=_OWN_DEVICES,
    show_default=True,
    help="Folder of your own devices.",
)
@_json_option
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
@click.option("--runs", required=True, type=_FILE, help="CSV file: file,ms and, for .param files, input.")
@click.option("--params", "models", type=_FOLDER, help="Folder of the models, else that of the CSV file.")
@click.option(
    *("--out", "folder"),
    type=click.Path(file_okay=False, path_type=Path),
    default=_OWN_DEVICES,
    show_default=True,
    help="Folder to write to.",
)
@_json_option
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


@cli.command()
@click.argument("bundles", nargs=-1, required=True, type=_EXISTING)
@click.option("--budget", type=_EXISTING, help="TOML file with a [budget] to judge by.")
@click.option("--baseline", type=_EXISTING, help="An older bundle to compare with.")
@click.option("--no-run", is_flag=True, help="Do not re-run the goldens.")
@click.option("--junit", type=click.Path(path_type=Path), help="Also write the verdicts as JUnit XML.")
@_json_option
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


@cli.command()
@click.argument("bundle", type=_EXISTING)
@_json_option
def inspect(bundle: Path, as_json: bool) -> int:
    """Show what a BUNDLE holds, what it costs and how it was judged.

    Example: edgepack inspect out/android-arm64-mid.edgepack
    """
    from edgepack import checking

    click.echo(checking.render_bundle(bundle, as_json), nl=False)
    return EXIT_WITHIN_BUDGET


@cli.command()
@click.argument("folder", type=_EXISTING)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "html", "json", "junit"]),
    default="text",
    show_default=True,
)
@_json_option
def report(folder: Path, style: str, as_json: bool) -> int:
    """Render the report of a finished build again, from the report.json in FOLDER.

    Example: edgepack report out --format markdown
    """
    from edgepack.report import files

    click.echo(files.render(folder, "json" if as_json else style), nl=False)
    return EXIT_WITHIN_BUDGET
