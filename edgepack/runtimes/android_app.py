"""What the embedded Android code answers on a JVM, its model's scores worked out elsewhere."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.errors import MeasureError
from edgepack.tools import jdk

_SOURCES = Path(__file__).parent / "jvm"
_COMPILING_S = 120.0


def recommend(
    sources: Sequence[Path],
    assets: Path,
    histories: list[list[int]],
    k: int,
    score: Callable[[NDArray[np.int32]], NDArray[np.float32]],
    *,
    deadline_s: float,
) -> list[list[tuple[int, float]]]:
    """Return for each history (item indices, oldest first) the k indices and scores that the code recommends.

    `sources` are the embedded `edgepack.core` and facts, `assets` the folder of what they read. `score` turns
    the rows that the code makes, int32 [N, L], into scores, float32 [N, V + 1]. Raises MeasureError when the
    code fails, ToolError without a JDK, LimitError when `deadline_s` passes, and whatever `score` raises.
    """
    programs = jdk.locate()
    told = "".join(" ".join(map(str, history)) + "\n" for history in histories).encode()
    with tempfile.TemporaryDirectory(prefix="edgepack-jvm-") as folder:
        options = ["--release", "8", "-Xlint:-options", "-encoding", "UTF-8", "-d", folder]
        _run([programs.javac, *options, *sources, *sorted(_SOURCES.iterdir())])
        lists: list[str | Path] = [programs.java, "-cp", folder, "edgepack.jvm.Lists", assets, str(k)]
        rows = [list(map(int, line.split())) for line in _run(lists, told, deadline_s)]
        scores = Path(folder) / "scores.bin"
        score(np.array(rows, np.int32)).astype("<f4").tofile(scores)
        answers = _run([*lists, scores], told, deadline_s)
    return [[_place(pair) for pair in line.split()] for line in answers]


def _place(pair: str) -> tuple[int, float]:
    index, _, score = pair.partition(":")
    return int(index), float(score)


def _run(argv: list[str | Path], stdin: bytes = b"", deadline_s: float = _COMPILING_S) -> list[str]:
    done = proc.run(argv, deadline_s=deadline_s, stdin=stdin)
    if done.returncode:
        raise MeasureError(
            "the Android app's code",
            f"{Path(argv[0]).name} ended with status {done.returncode} ({done.stderr_tail[-300:].strip()})",
            remedy="Report this as a bug.",
        )
    return done.stdout.decode().splitlines()
