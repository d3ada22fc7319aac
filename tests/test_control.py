"""Accuracy control gives precision back where it pays, stops when it must, and forgets no trial."""

import itertools
from pathlib import Path

import pytest

from edgepack import control
from edgepack.control import Found, Tolerance, Unit

UNITS = (
    Unit(name="ffn", bytes_by_rung=(100, 200, 400)),
    Unit(name="attention", bytes_by_rung=(100, 200, 400)),
    Unit(name="table, head rows", bytes_by_rung=(1_000, 2_000)),
    Unit(name="table, tail rows", bytes_by_rung=(3_000, 6_000)),
)
DROPS = {
    "ffn": (0.004, 0.001, 0.0),
    "attention": (0.030, 0.006, 0.0),
    "table, head rows": (0.020, 0.0),
    "table, tail rows": (0.002, 0.0),
}
TOLERANCE = Tolerance(max_drop=0.01, min_overlap_at_10=0.8)


class Model:
    """Losses add up over units; `trials` counts what was measured, `killed_at` interrupts one."""

    def __init__(self, killed_at: int = 0) -> None:
        self.trials, self.killed_at = 0, killed_at

    def __call__(self, rungs: dict[str, int]) -> Found:
        self.trials += 1
        if self.trials == self.killed_at:
            raise KeyboardInterrupt
        drop = sum(DROPS[name][rung] for name, rung in rungs.items())
        return Found(drop=drop, overlap_at_10=1 - 5 * drop)


def searched(search, folder: Path, model, tolerance=TOLERANCE, most=60, **options):
    told: list[tuple[str, int, int]] = []
    outcome = search(
        UNITS,
        model,
        tolerance,
        most_trials=most,
        log=folder / "trials.jsonl",
        key="model",
        tell=lambda *step: told.append(step),
        **options,
    )
    return outcome, told


def smallest_within(tolerance: Tolerance) -> int:
    ladders = [range(len(unit.bytes_by_rung)) for unit in UNITS]
    names = [unit.name for unit in UNITS]
    sums = []
    for rungs in itertools.product(*ladders):
        found = Model()(dict(zip(names, rungs, strict=True)))
        if control.excess(found, tolerance) <= 1:
            sums.append(sum(unit.bytes_by_rung[rung] for unit, rung in zip(UNITS, rungs, strict=True)))
    return min(sums)


def test_precision_goes_back_to_what_costs_most_for_its_bytes(tmp_path: Path) -> None:
    outcome, _ = searched(control.restore, tmp_path, Model())
    assert outcome.within
    assert outcome.best.rungs["table, tail rows"] == 0
    assert outcome.best.rungs["attention"] > 0
    assert next(iter(outcome.costs)) == "attention"
    assert outcome.best.unit_bytes == smallest_within(TOLERANCE)


def test_precision_goes_away_until_nothing_more_may(tmp_path: Path) -> None:
    outcome, _ = searched(control.shrink, tmp_path, Model())
    assert outcome.within and outcome.why == "nothing more can be taken away"
    assert outcome.best.unit_bytes == smallest_within(TOLERANCE)


def test_a_search_from_a_start_lowers_only_what_stands_above_the_bottom(tmp_path: Path) -> None:
    start = {"ffn": 0, "attention": 2, "table, head rows": 1, "table, tail rows": 0}
    outcome, _ = searched(control.shrink, tmp_path, Model(), start=start)
    assert outcome.best.rungs["ffn"] == outcome.best.rungs["table, tail rows"] == 0
    assert outcome.best.rungs["table, head rows"] == 1


def test_a_list_that_changes_costs_though_the_metric_gains(tmp_path: Path) -> None:
    def gains(rungs: dict[str, int]) -> Found:
        drop = sum(DROPS[name][rung] for name, rung in rungs.items())
        return Found(drop=-drop, overlap_at_10=1 - 40 * drop)

    outcome, _ = searched(control.restore, tmp_path, gains)
    assert outcome.within
    assert 1 - outcome.best.found.overlap_at_10 <= 0.2
    assert next(iter(outcome.costs)) == "attention"


def test_the_nearest_try_comes_back_when_none_is_within(tmp_path: Path) -> None:
    def broken(rungs: dict[str, int]) -> Found:
        return Found(drop=0.5 + Model()(rungs).drop, overlap_at_10=0.1)

    outcome, _ = searched(control.restore, tmp_path, broken)
    assert not outcome.within
    assert outcome.best.rungs == {unit.name: unit.top for unit in UNITS}
    assert "does not hold" in outcome.why


def test_the_cap_ends_the_search_with_the_best_try(tmp_path: Path) -> None:
    model = Model()
    outcome, told = searched(control.restore, tmp_path, model, most=3)
    assert model.trials == 3 == len(outcome.trials)
    assert outcome.why == "stopped after 3 trials, the most allowed"
    assert [done for _, done, _ in told] == [1, 2, 3]


@pytest.mark.parametrize("killed_at", [1, 4, 9])
def test_a_killed_search_measures_no_trial_twice(tmp_path: Path, killed_at: int) -> None:
    whole = Model()
    expected, _ = searched(control.restore, tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        searched(control.restore, tmp_path / "killed", Model(killed_at))
    log = tmp_path / "killed" / "trials.jsonl"
    if log.exists():
        log.write_bytes(log.read_bytes() + b'{"key": "half a li')
    rest = Model()
    outcome, _ = searched(control.restore, tmp_path / "killed", rest)
    assert rest.trials == whole.trials - (killed_at - 1)
    assert outcome.best.rungs == expected.best.rungs
    again = Model()
    searched(control.restore, tmp_path / "killed", again)
    assert again.trials == 0


def test_another_model_starts_a_search_of_its_own(tmp_path: Path) -> None:
    searched(control.restore, tmp_path, Model())
    model = Model()
    control.restore(
        UNITS,
        model,
        TOLERANCE,
        most_trials=60,
        log=tmp_path / "trials.jsonl",
        key="another",
        tell=lambda *step: None,
    )
    assert model.trials > 0
