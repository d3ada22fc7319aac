"""Accuracy control: which layers and table row groups get precision back, and which can give more up.

The loop knows units, rungs and what a trial found; what a rung means and how a trial is carried out is the
caller's. Every trial is written down as it ends, so that an interrupted search goes on where it stood: the
search is a function of its trials' results, and those in the log are not measured again.

Ranking units by what each alone costs, and giving back the worst first, is the accuracy-aware loop of
NNCF (`quantize_with_accuracy_control`, OpenVINO); here a ranking's drop and overlap take accuracy's place,
bytes weigh in, and table rows can be units as well as layers.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgepack.store import digest_of
from edgepack.tools import Tell

_LEAST = 1e-9


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, or a group of a table's rows: what changes precision as one.

    `bytes_by_rung`: what it takes in the file at each precision, coarsest first.
    """

    name: str
    bytes_by_rung: tuple[int, ...]

    @property
    def top(self) -> int:
        """The finest rung."""
        return len(self.bytes_by_rung) - 1


class Tolerance(msgspec.Struct, frozen=True, kw_only=True):
    """What may be lost against the float model: a relative drop of NDCG@10, and lists changed at the top."""

    max_drop: float = 0.01
    min_overlap_at_10: float = 0.80


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a trial lost: relative drop of NDCG@10 (0.01: one per cent), overlap@10 with the float model."""

    drop: float
    overlap_at_10: float


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One assignment of rungs to units, its `unit_bytes` in sum, and what was found."""

    rungs: dict[str, int]
    unit_bytes: int
    found: Found
    wall_s: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`best`: the smallest trial within the tolerance, else the nearest to it. `why` says how it ended.

    `costs`: what each unit alone, on its coarsest rung that was tried, cost; the worst first.
    """

    best: Trial
    within: bool
    why: str
    costs: dict[str, Found]
    trials: tuple[Trial, ...]


Measure = Callable[[dict[str, int]], Found]


def restore(
    units: Sequence[Unit],
    measure: Measure,
    tolerance: Tolerance,
    *,
    most_trials: int,
    log: Path,
    key: str,
    tell: Tell,
) -> Outcome:
    """Start with everything on its coarsest rung and give precision back until `tolerance` holds.

    The unit that costs most for each byte that a finer rung takes comes first; what turns out not to be
    needed once the tolerance holds is taken away again. `measure` takes rungs by unit and carries out a
    trial; no more than `most_trials` are. `log` keeps the trials of `key`, which stands for all that their
    results depend on. When no trial is within the tolerance, the nearest comes back.
    """
    search = _Search(units, measure, tolerance, most_trials, log, key, tell)
    return search.outcome(lambda: _restored(search))


def shrink(
    units: Sequence[Unit],
    measure: Measure,
    tolerance: Tolerance,
    *,
    start: dict[str, int] | None = None,
    most_trials: int,
    log: Path,
    key: str,
    tell: Tell,
) -> Outcome:
    """Start with everything fine (or at `start`) and take precision away while `tolerance` holds.

    The unit that saves most bytes for what it costs alone comes first; one whose next rung breaks the
    tolerance stays where it is. Otherwise as `restore`.
    """
    search = _Search(units, measure, tolerance, most_trials, log, key, tell)
    begin = start or {unit.name: unit.top for unit in units}
    return search.outcome(lambda: _shrunk(search, begin))


def excess(found: Found, tolerance: Tolerance) -> float:
    """Return the share of the tolerance that is used up; above 1 it is broken."""
    drop = found.drop / max(tolerance.max_drop, _LEAST)
    changed = (1 - found.overlap_at_10) / max(1 - tolerance.min_overlap_at_10, _LEAST)
    return max(drop, changed)


class _Exhausted(Exception):  # noqa: N818  it ends a search and is no error
    """No more trials are allowed."""


class _Search:
    """The trials of one search: each assignment is measured once, ever."""

    def __init__(
        self,
        units: Sequence[Unit],
        measure: Measure,
        tolerance: Tolerance,
        most_trials: int,
        log: Path,
        key: str,
        tell: Tell,
    ) -> None:
        self.units, self.tolerance = tuple(units), tolerance
        self._measure, self._most, self._log, self._tell = measure, most_trials, log, tell
        self._key = digest_of([key, msgspec.to_builtins(self.units)])
        self._known = {_name(trial): trial for trial in _read(log, self._key)}
        self.trials: dict[str, Trial] = {}
        self.costs: dict[str, tuple[int, Found]] = {}

    def outcome(self, run: Callable[[], str]) -> Outcome:
        try:
            why = run()
        except _Exhausted:
            why = f"stopped after {self._most} trials, the most allowed"
        return self._summary(why)

    def _summary(self, why: str) -> Outcome:
        trials = tuple(self.trials.values())
        good = [t for t in trials if self.is_within(t.found)]
        nearest = min(trials, key=lambda t: (excess(t.found, self.tolerance), t.unit_bytes))
        best = min(good, key=lambda t: (t.unit_bytes, excess(t.found, self.tolerance)), default=nearest)
        costs = {name: found for name, (_, found) in self.costs.items()}
        worst_first = sorted(costs, key=lambda name: -excess(costs[name], self.tolerance))
        return Outcome(
            best=best, within=bool(good), why=why, costs={n: costs[n] for n in worst_first}, trials=trials
        )

    def is_within(self, found: Found) -> bool:
        return excess(found, self.tolerance) <= 1

    def tried(self, rungs: dict[str, int]) -> Found:
        """Return what `rungs` lose, measured now if that is not known."""
        name = _name_of(rungs)
        if name not in self.trials:
            if len(self.trials) >= self._most:
                raise _Exhausted
            self.trials[name] = self._known.get(name) or self._carried_out(rungs)
            self._tell("accuracy control", len(self.trials), self._most)
        return self.trials[name].found

    def _carried_out(self, rungs: dict[str, int]) -> Trial:
        began = time.monotonic()
        found = self._measure(dict(rungs))
        taken = sum(unit.bytes_by_rung[rungs[unit.name]] for unit in self.units)
        trial = Trial(rungs=dict(rungs), unit_bytes=taken, found=found, wall_s=time.monotonic() - began)
        _append(self._log, self._key, trial)
        return trial

    def cost(self, unit: Unit, rung: int) -> float:
        """Return the share of the tolerance that `unit` alone uses up on `rung`, everything else fine."""
        found = self.tried({other.name: other.top for other in self.units} | {unit.name: rung})
        if unit.name not in self.costs or rung <= self.costs[unit.name][0]:
            self.costs[unit.name] = (rung, found)
        # Noise can make a loss a gain; a list that changed is a cost nevertheless.
        return max(excess(found, self.tolerance), _LEAST)


def _restored(search: _Search) -> str:
    rungs = {unit.name: 0 for unit in search.units}
    while not search.is_within(search.tried(rungs)):
        raisable = [unit for unit in search.units if rungs[unit.name] < unit.top]
        if not raisable:
            return "everything is on its finest rung and the tolerance does not hold"
        worst = max(raisable, key=lambda unit: _relief(search, unit, rungs[unit.name]))
        rungs[worst.name] += 1
    _shrunk(search, rungs)
    return "the tolerance holds"


def _relief(search: _Search, unit: Unit, rung: int) -> float:
    """Return what the next rung may win back for each byte that it takes."""
    extra = unit.bytes_by_rung[rung + 1] - unit.bytes_by_rung[rung]
    return search.cost(unit, rung) / max(extra, 1)


def _shrunk(search: _Search, rungs: dict[str, int]) -> str:
    rungs, settled = dict(rungs), set[str]()
    if not search.is_within(search.tried(rungs)):
        return "the start does not hold the tolerance"
    while open_units := [u for u in search.units if rungs[u.name] > 0 and u.name not in settled]:
        cheapest = max(open_units, key=lambda unit: _saving(search, unit, rungs[unit.name]))
        lower = rungs | {cheapest.name: rungs[cheapest.name] - 1}
        if search.is_within(search.tried(lower)):
            rungs = lower
        else:
            settled.add(cheapest.name)
    return "nothing more can be taken away"


def _saving(search: _Search, unit: Unit, rung: int) -> float:
    """Return the bytes that the next coarser rung saves for what it costs alone."""
    saved = unit.bytes_by_rung[rung] - unit.bytes_by_rung[rung - 1]
    return saved / search.cost(unit, rung - 1)


def _name(trial: Trial) -> str:
    return _name_of(trial.rungs)


def _name_of(rungs: dict[str, int]) -> str:
    return " ".join(f"{name}={rung}" for name, rung in sorted(rungs.items()))


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    trial: Trial


def _read(log: Path, key: str) -> list[Trial]:
    """Return the trials of `key`; a last line that was not written whole is left out."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    whole = [msgspec.json.decode(line, type=_Line) for line in lines if line.endswith(b"\n")]
    return [line.trial for line in whole if line.key == key]


def _append(log: Path, key: str, trial: Trial) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    whole = log.read_bytes().rfind(b"\n") + 1 if log.exists() else 0
    with log.open("ab") as file:
        # What a kill left of a line would spoil the next one.
        file.truncate(whole)
        file.write(msgspec.json.encode(_Line(key=key, trial=trial)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
