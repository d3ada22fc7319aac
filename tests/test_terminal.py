"""Progress in lines: how far the work is, and when it will end."""

import pytest

from edgepack import terminal
from edgepack.terminal import Terminal


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One number of seconds that a test moves on, in the place of the machine's."""
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(("first", "rest_s"), [(0, 1180), (39, 400)], ids=["from the start", "resumed"])
def test_what_is_left_follows_from_what_this_run_did(
    clock: list[float], capsys: pytest.CaptureFixture[str], first: int, rest_s: int
) -> None:
    tell = Terminal()
    tell("training sasrec", first, 60)
    clock[0] += 20
    tell("training sasrec: loss 5.5", first + 1, 60)
    assert capsys.readouterr().err.splitlines() == [
        f"training sasrec {first}/60",
        f"training sasrec: loss 5.5 {first + 1}/60, about {rest_s} s left",
    ]


def test_a_piece_of_work_is_timed_by_itself(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    tell = Terminal()
    tell("measuring", 0, 4)
    clock[0] += 40
    tell("measuring", 1, 4)
    tell("converting", 0, 2)
    clock[0] += 15
    tell("converting", 1, 2)
    assert capsys.readouterr().err.splitlines() == [
        "measuring 0/4",
        "measuring 1/4, about 120 s left",
        "converting 0/2",
        "converting 1/2, about 15 s left",
    ]
