"""`measure`, `explain`, `advise`: what one model file costs, why, and what to try on it."""

from pathlib import Path

import click

from edgepack.cli.options import EXISTING, FILE, json_option
from edgepack.errors import EXIT_WITHIN_BUDGET


@click.command()
@click.argument("model", type=EXISTING)
@click.option("-t", "--target", "pattern", help="Name of the target.")
@click.option("--device", help="A real phone instead: adb:SERIAL, or adb when only one is connected.")
@json_option
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


@click.command()
@click.argument("model", type=FILE)
@click.option("-t", "--target", "pattern", required=True, help="Name of an arm64 target.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True, help="Operators to show.")
@json_option
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


@click.command()
@click.argument("model", type=FILE)
@click.option("-t", "--target", "patterns", multiple=True, help="Glob of target names; repeatable.")
@json_option
def advise(model: Path, patterns: tuple[str, ...], as_json: bool) -> int:
    """Say what the bytes of a .keras, .h5, .tflite or .onnx MODEL are, what to try, and what it should bring.

    Example: edgepack advise model.keras -t 'android-*'
    """
    from edgepack import advising

    click.echo(advising.render(advising.advise(model, patterns), as_json), nl=False)
    return EXIT_WITHIN_BUDGET
