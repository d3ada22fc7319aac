"""The only place that starts a process: a deadline, a process group of its own, the end of stderr kept."""

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from edgepack.errors import LimitError, ToolError

_STDERR_TAIL_BYTES = 4_000
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Completed(NamedTuple):
    """What a process left: exit status (negative: killed by that signal), output, wall seconds."""

    returncode: int
    stdout: bytes
    stderr_tail: str
    wall_s: float


def run(
    argv: Sequence[str | Path],
    *,
    deadline_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    remedy: str = "Install it, or run `edgepack doctor` to see what is missing.",
) -> Completed:
    """Run `argv` to its end and return what it left; a non-zero status is the caller's to judge.

    The child leads a process group, so that nothing it started outlives the deadline, Ctrl-C or an
    error here. `env` is added to the present environment.

    Raises ToolError when the program does not exist, LimitError when `deadline_s` passes.
    """
    words = [os.fspath(word) for word in argv]
    started = time.monotonic()
    # Output goes to files, not pipes: a chatty child can then never block on a reader.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env={**os.environ, **env} if env else None,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise ToolError(words[0], f"cannot be started ({error.strerror})", remedy=remedy) from error
        try:
            child.communicate(stdin, timeout=deadline_s)
        except subprocess.TimeoutExpired as error:
            raise LimitError(
                Path(words[0]).name,
                f"still running after {deadline_s:.0f} s",
                allowed="that is its deadline",
                remedy=f"It was stopped; its last words: {_tail(err) or 'none'}",
            ) from error
        finally:
            _end_group(child)
        out.seek(0)
        return Completed(child.returncode, out.read(), _tail(err), time.monotonic() - started)


def must(argv: Sequence[str | Path], *, deadline_s: float, remedy: str, cwd: Path | None = None) -> Completed:
    """Run `argv` as `run` does. Raises ToolError with the end of its stderr when its status is not 0."""
    done = run(argv, deadline_s=deadline_s, cwd=cwd, remedy=remedy)
    if done.returncode:
        last = " ".join(done.stderr_tail.splitlines()[-2:]) or "no message"
        found = f"failed with status {done.returncode} ({last})"
        raise ToolError(Path(argv[0]).name, found, remedy=remedy)
    return done


def _die_with_parent() -> None:
    # A session of its own shields the child from Ctrl-C; this ends it even when we are killed with -9.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _tail(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _STDERR_TAIL_BYTES))
    return stream.read().decode("utf-8", "replace").strip()
