"""The command line: a command parses, calls one function, renders, and returns an exit code.

Results go to stdout, progress and errors to stderr. Heavy imports stand inside the commands, so that
`edgepack --help` loads click and nothing else.
"""

import signal
import sys
from pathlib import Path
from types import FrameType

import click

from edgepack import __version__
from edgepack.cli import building, bundles, calibrating, embedding, measuring, tools
from edgepack.errors import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    EXIT_WITHIN_BUDGET,
    EdgepackError,
    ToolError,
)


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


for _command in (
    *(tools.doctor, tools.setup, tools.targets),
    *(building.data, building.train, building.build_command),
    *(measuring.measure, measuring.explain, measuring.advise),
    calibrating.calibrate,
    *(bundles.check, bundles.inspect, bundles.report),
    embedding.embed,
):
    cli.add_command(_command)
