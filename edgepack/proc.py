"""The only place that starts a process: a deadline, a process group of its own, the end of stderr kept.

When edgepack itself is killed with -9, the kernel kills the processes that `run` started; what these started
in turn is told by nobody (an emulated run starts nothing).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from edgepack.errors import LimitError, ToolError

_STDERR_TAIL_BYTES = 4_000
_POLL_S = 0.05
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_running: set[subprocess.Popen[bytes]] = set()
_given_up: set[subprocess.Popen[bytes]] = set()


class Abandoned(BaseException):
    """Nobody waits for this process any more. No Exception, lest it be kept as a failure of the model."""


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

    Raises ToolError when the program does not exist, LimitError when `deadline_s` passes, Abandoned when
    another thread called `abandon`.
    """
    words = [os.fspath(word) for word in argv]
    started = time.monotonic()
    # Output goes to files, not pipes: a chatty child can then never block on a reader.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            with _signals_held_back() as held_back:
                child = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    cwd=cwd,
                    env={**os.environ, **env} if env else None,
                    start_new_session=True,
                    preexec_fn=partial(_die_with_parent, os.getpid()),
                )
        except (FileNotFoundError, PermissionError) as error:
            raise ToolError(words[0], f"cannot be started ({error.strerror})", remedy=remedy) from error
        _running.add(child)
        try:
            for number in held_back:
                signal.raise_signal(number)
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
            _running.discard(child)
        if child in _given_up:
            _given_up.discard(child)
            raise Abandoned
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


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[str]:
    """Make a folder and remove it at the end; a signal that comes while either is done waits until it is."""
    with _signals_held_back() as early:
        folder = tempfile.TemporaryDirectory(prefix=prefix)
    try:
        for number in early:
            signal.raise_signal(number)
        yield folder.name
    finally:
        with _signals_held_back() as late:
            folder.cleanup()
        for number in late:
            signal.raise_signal(number)


def abandon(pool: ThreadPoolExecutor, futures: Sequence[Future[Any]]) -> None:
    """Give up the work of a pool's threads: what waits is cancelled, the processes of `run` are ended.

    Without it, Ctrl-C or one job's failure would wait for the other jobs' processes. Call it in the thread
    that made the pool; it returns when all threads are idle.
    """
    pool.shutdown(wait=False, cancel_futures=True)
    while not all(future.done() for future in futures):  # a job between two processes starts another one
        for child in list(_running):
            _given_up.add(child)
            _kill_group(child)
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _signals_held_back() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of handling them.

    Python runs hooks after a fork (of `logging`, for one) and ignores what is raised in them: a Ctrl-C that
    comes while a process is started would be lost.
    """
    held_back: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread alone
        yield held_back
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda caught, _frame: held_back.append(caught))
    try:
        yield held_back
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def _die_with_parent(parent: int) -> None:
    # A session of its own shields the child from Ctrl-C; this ends it even when we are killed with -9. The
    # signal is sent when the *thread* ends that started the child, which waits for it in `run`.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # killed before we could ask


def _end_group(child: subprocess.Popen[bytes]) -> None:
    _kill_group(child)
    child.wait()


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _tail(stream: IO[bytes]) -> str:
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _STDERR_TAIL_BYTES))
    return stream.read().decode("utf-8", "replace").strip()
