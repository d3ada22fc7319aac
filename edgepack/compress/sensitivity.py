"""What each layer, and each group of a table's rows, costs when it alone is compressed.

One unit at a time gets its lossy weights while all others stay float; what the ranking loses then is the
unit's. Activations stay float: this finds the weights that should keep their precision, and is no forecast
of a whole file's loss, which is not the sum of its parts.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.compress.schemes import rounded_weights
from edgepack.data.types import EvaluationSet
from edgepack.evaluate.paired import drop, estimate
from edgepack.evaluate.ranking import Evaluation, evaluate, overlap
from edgepack.keras2 import tf
from edgepack.models.graphs import bare_name, fed
from edgepack.results import UnitLoss
from edgepack.rows import Rows, part, row_count
from edgepack.tools import Tell

Weights = dict[str, NDArray[np.float32]]
"""Weights by "layer/variable"."""

_CHUNK_ROWS = 256
_SEED = 17


class Unit(NamedTuple):
    """What is compressed alone: whole weights, or some rows of a table (`rows` int64, None for all).

    `weights` maps each "layer/variable" to the axis that its rows lie on: a tied kernel is the table's
    transpose and shares its rows.
    """

    name: str
    weights: dict[str, int]
    rows: NDArray[np.int64] | None = None


def lossy(serving: Any, bits: int) -> Weights:
    """Return every weight that is stored in few bits, rounded to `bits` with one scale a tensor.

    Symmetric, zero stays zero, as the int8 files have it. `serving` is a plain Keras 2 model; layers of a
    class that nobody told edgepack about are left out.
    """
    levels = 2 ** (bits - 1) - 1
    found = {}
    for name, variable in variables(serving).items():
        values = variable.numpy()
        scale = float(np.abs(values).max()) / levels or 1.0
        found[name] = np.asarray(np.round(values / scale) * scale, np.float32)
    return found


def units(
    serving: Any,
    *,
    table: str = "",
    tied: str | None = None,
    rows: Mapping[str, NDArray[np.int64]] | None = None,
) -> list[Unit]:
    """Return a unit for each layer with weights; for the Embedding `table` one for each group of its `rows`.

    `tied` is the Dense layer whose kernel is the transposed table, is stored with it and goes with it.
    """
    groups: Mapping[str, NDArray[np.int64] | None] = rows or {"all rows": None}
    found = []
    for name in variables(serving):
        layer = name.partition("/")[0]
        if table and layer == table:
            shared = {name: 0} if tied is None else {name: 0, f"{tied}/kernel": 1}
            found += [Unit(f"{table}: {told}", shared, chosen) for told, chosen in groups.items()]
        elif layer != tied:
            found.append(Unit(layer, {name: 0}))
    return found


def losses(
    serving: Any,
    compressed: Mapping[str, NDArray[np.float32]],
    parts: list[Unit],
    *,
    rows: NDArray[np.int32] | Rows,
    users: EvaluationSet,
    filter_seen: bool = True,
    tell: Tell = lambda what, done, total: None,
) -> list[UnitLoss]:
    """Score `users` with each of `parts` alone as `compressed` has it, and return the losses, worst first.

    `serving` is a Keras model, `history` int32 [B, L] -> `scores` float32 [B, V + 1]; its weights are as they
    were when this returns or raises. `compressed` maps "layer/variable" to a whole tensor of the same shape.
    `rows` int32 [users, L] an input. One pass over the users a unit. Worst is the largest sum of the drop of
    NDCG@10, where it is one, and of the share of the top 10 that changed.
    """
    own = variables(serving)
    call = tf.function(lambda inputs: serving(inputs, training=False), reduce_retracing=True)

    def ranked() -> Evaluation:
        return evaluate(scored(call, serving, rows), users, filter_seen=filter_seen)

    before = ranked()
    found = []
    for done, unit in enumerate(parts):
        tell(f"loss of {unit.name} alone", done, len(parts))
        found.append(_alone(unit, own, compressed, before, ranked))
    return sorted(found, key=lambda one: (-_cost(one), one.unit))


def _alone(
    unit: Unit,
    variables: Mapping[str, Any],
    compressed: Mapping[str, NDArray[np.float32]],
    before: Evaluation,
    ranked: Callable[[], Evaluation],
) -> UnitLoss:
    kept = {name: variables[name].numpy() for name in unit.weights}
    try:
        for name, axis in unit.weights.items():
            variables[name].assign(_mixed(kept[name], compressed[name], unit.rows, axis))
        after = ranked()
    finally:
        for name, values in kept.items():
            variables[name].assign(values)
    return UnitLoss(
        unit=unit.name,
        weights=_count(next(iter(kept.values())), unit),
        drop=drop("ndcg@10", before.metrics["ndcg@10"], after.metrics["ndcg@10"], _SEED),
        overlap_at_10=estimate(overlap(before.top10, after.top10), _SEED),
    )


def _mixed(
    plain: NDArray[np.float32], compressed: NDArray[np.float32], rows: NDArray[np.int64] | None, axis: int
) -> NDArray[np.float32]:
    if rows is None:
        return compressed
    mixed = np.array(plain)
    place = (slice(None),) * axis + (rows,)
    mixed[place] = compressed[place]
    return mixed


def _count(values: NDArray[np.float32], part: Unit) -> int:
    return values.size if part.rows is None else len(part.rows) * (values.size // len(values))


def _cost(one: UnitLoss) -> float:
    return max(one.drop.value, 0.0) + 1.0 - one.overlap_at_10.value


def scored(call: Any, serving: Any, rows: NDArray[np.int32] | Rows) -> Iterator[NDArray[np.float32]]:
    """Yield the scores float32 [n, V + 1] that `call` gives for `serving`, some rows at a time."""
    for begin in range(0, row_count(rows), _CHUNK_ROWS):
        yield call(fed(serving, part(rows, begin, begin + _CHUNK_ROWS))).numpy()


def variables(serving: Any) -> dict[str, Any]:
    """Return the weights that compression takes, by "layer/variable", in the order of the layers."""
    return {
        f"{bare_name(layer.name)}/{name}": getattr(layer, name)
        for layer in serving.layers
        for name in rounded_weights(layer) or ()
    }
