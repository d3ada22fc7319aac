"""Progress on stderr: what is being done, how far it is, and when it will end."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_QUIET_S = 10.0


class Terminal:
    """A `tools.Tell` that draws bars on a terminal and writes a line now and then anywhere else."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = sys.stderr.isatty()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._what = ""
        self._began = self._spoke = time.monotonic()
        self._first = 0

    def __enter__(self) -> "Terminal":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Write `text` to stderr above the bars."""
        self._console.print(text.rstrip("\n"), markup=False, soft_wrap=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps (0 = unknown) of `what` are done."""
        if self._live:
            self._draw(what, done, total)
        else:
            self._line(what, done, total)

    def _draw(self, what: str, done: int, total: int) -> None:
        if self._is_new(what):
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._bars.add_task(what, completed=done, total=total or None)
        for task in self._bars.task_ids:
            self._bars.update(task, description=what, completed=done, total=total or None)

    def _line(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._is_new(what):
            self._began, self._first = now, done
        elif now - self._spoke < _QUIET_S and done < (total or done + 1):
            return
        self._spoke = now
        # What an earlier run had done took none of this one's time.
        finished = done - self._first
        eta_s = (now - self._began) / finished * (total - done) if finished and total else None
        tail = f" {done}/{total}" if total else ""
        ending = f", about {eta_s:.0f} s left" if eta_s and eta_s >= 1 else ""
        self._console.print(f"{what}{tail}{ending}", markup=False, soft_wrap=True)

    def _is_new(self, what: str) -> bool:
        # "training sasrec: loss 6.2 …" goes on being "training sasrec".
        work = what.partition(": ")[0]
        known, self._what = self._what, work
        return work != known
