"""Accuracy control: which grid each layer and table band gets, found before a recipe is carried out."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgepack import control
from edgepack.compress.recipes import Control, Recipe, Tables
from edgepack.control import Found, Outcome, Tolerance
from edgepack.results import Controlled, ControlledUnit
from edgepack.stages import Place, versions
from edgepack.stages.logs import calibration, validated
from edgepack.stages.models import Trained, trained_graphs
from edgepack.store import Kept, source_fingerprint, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepack.compress.tables.controlled import Choices

USERS = 2_000
"""Validation users that every trial ranks; the test users are not looked at to choose by."""


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """What a search ended with: the step's grids, and how they were found."""

    tables: Tables
    outcome: Outcome
    users: int
    units: tuple[ControlledUnit, ...]


def settled(place: Place, split: Kept, trained: Trained, recipe: Recipe) -> Recipe:
    """Return `recipe` with the grids that its accuracy control finds in place of the control."""
    found = search(place, split, trained, recipe)
    return recipe if found is None else msgspec.structs.replace(recipe, tables=found.tables)


def told(place: Place, split: Kept, trained: Trained, recipe: Recipe) -> Controlled:
    """Return what accuracy control found, for the reports."""
    found = search(place, split, trained, recipe)
    assert found is not None  # noqa: S101  the caller's to check
    best = found.outcome.best
    return Controlled(
        recipe=recipe.name,
        users=found.users,
        trials=len(found.outcome.trials),
        within=found.outcome.within,
        why=found.outcome.why,
        drop=best.found.drop,
        overlap_at_10=best.found.overlap_at_10,
        units=found.units,
    )


def search(place: Place, split: Kept, trained: Trained, recipe: Recipe) -> Settled | None:
    """Return what accuracy control finds, None for a recipe without it or a model that came as ONNX.

    An interrupted search goes on from its last trial.
    """
    tables = recipe.tables
    if tables is None or tables.control is None or trained.model.onnx is not None:
        return None
    settings = tables.control
    inputs = {
        "split": split.digest,
        "weights": trained.weights.digest,
        "model": trained.model.identity,
        "filter_seen": place.config.quality.filter_seen,
        "tables": msgspec.to_builtins(tables),
        "users": USERS,
        "code": source_fingerprint("evaluate", "compress", "control.py", "stages/controlled.py"),
        "versions": versions("tensorflow", "tf_keras", "numpy"),
    }

    def make(folder: Path) -> None:
        found = _searched(place, split, trained, tables, settings, folder)
        write_atomic(folder / "settled.json", msgspec.json.encode(found))
        (folder / "trials.jsonl").unlink()

    kept = place.store.produce("control", inputs, make)
    return msgspec.json.decode((kept.path / "settled.json").read_bytes(), type=Settled)


def _searched(
    place: Place, split: Kept, trained: Trained, tables: Tables, settings: Control, folder: Path
) -> Settled:
    import numpy as np

    from edgepack.compress.tables import formats
    from edgepack.compress.tables.controlled import Choices
    from edgepack.data.split import load_split
    from edgepack.models.folding import shipped

    whole, _ = load_split(split.path)
    popularity = np.bincount(whole.train.items, minlength=whole.item_count + 1)
    graphs = shipped(trained_graphs(trained))
    graphs = formats.shaped(graphs, tables, formats.worth_of(graphs, tables, calibration(place, split)))
    choices = Choices(graphs, tables, settings, popularity)
    way = control.shrink if settings.direction == "shrink" else control.restore
    ranking = _Ranking(place, whole, trained.model.length, graphs.serving, choices)
    outcome = way(
        choices.units,
        ranking,
        Tolerance(max_drop=settings.max_drop, min_overlap_at_10=settings.min_overlap_at_10),
        most_trials=settings.most_trials,
        log=folder / "trials.jsonl",
        key=trained.weights.digest,
        tell=place.tell,
    )
    return Settled(
        tables=choices.settled(outcome.best.rungs),
        outcome=outcome,
        users=ranking.users,
        units=tuple(_unit(choices, unit, outcome) for unit in choices.units),
    )


def _unit(choices: "Choices", unit: control.Unit, outcome: Outcome) -> ControlledUnit:
    rung, cost = outcome.best.rungs[unit.name], outcome.costs.get(unit.name)
    return ControlledUnit(
        unit=unit.name,
        precision=choices.precision(unit.name, rung),
        deflate_bytes=unit.bytes_by_rung[rung],
        most_deflate_bytes=unit.bytes_by_rung[-1],
        drop=cost.drop if cost else None,
        overlap_at_10=cost.overlap_at_10 if cost else None,
    )


class _Ranking:
    """Ranks validation users with the weights that an assignment of rungs gives; float ones to begin with."""

    def __init__(self, place: Place, whole: Any, length: int, serving: Any, choices: "Choices") -> None:
        from edgepack.compress.sensitivity import variables
        from edgepack.data import types
        from edgepack.keras2 import tf

        self._users = validated(whole, USERS)
        self._rows = types.rows(whole, self._users, length)
        self._filter_seen = place.config.quality.filter_seen
        self._serving, self._choices = serving, choices
        self._variables = variables(serving)
        self._call = tf.function(lambda inputs: serving(inputs, training=False), reduce_retracing=True)
        self._before = self._ranked()

    @property
    def users(self) -> int:
        """How many users a trial ranks."""
        count: int = self._users.history.users
        return count

    def __call__(self, rungs: dict[str, int]) -> Found:
        from edgepack.evaluate.ranking import overlap

        for name, values in self._choices.weights(rungs).items():
            self._variables[name].assign(values)
        after = self._ranked()
        before, now = (float(one.metrics["ndcg@10"].mean()) for one in (self._before, after))
        return Found(
            drop=1 - now / before if before else 0.0,
            overlap_at_10=float(overlap(self._before.top10, after.top10).mean()),
        )

    def _ranked(self) -> Any:
        from edgepack.compress.sensitivity import scored
        from edgepack.evaluate.ranking import evaluate

        chunks: Iterator[NDArray[np.float32]] = scored(self._call, self._serving, self._rows)
        return evaluate(chunks, self._users, filter_seen=self._filter_seen)
