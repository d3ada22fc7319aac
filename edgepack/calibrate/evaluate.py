"""How far a device model errs on networks and on devices that it never saw."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgepack.calibrate.fit import OF_COUNTS, Bounds, Fit, fit, fit_new_device, predicted_cycles
from edgepack.calibrate.rows import Row

PULLS = (0.03, 0.3, 3.0)
COVERAGE = 0.9
OWN_ROWS = (0, 1, 3, 5, 10)
_TEST_SHARE = 1 / 3
_FOLDS = 4


class Held(NamedTuple):
    """One row predicted by a model that never saw its network (or its device), with its 90 % interval."""

    row: Row
    predicted_ms: float
    low_ms: float
    high_ms: float

    @property
    def error(self) -> float:
        """Return the relative error: 0.1 is ten per cent too slow."""
        return self.predicted_ms / self.row.avg_ms - 1

    @property
    def covered(self) -> bool:
        """Whether the published latency lies in the interval."""
        return self.low_ms <= self.row.avg_ms <= self.high_ms


def outer_hold_out(
    rows: list[Row], *, splits: int, seed: int, bounds: Bounds = OF_COUNTS
) -> Iterator[list[Held]]:
    """Yield, split by split, the rows of a third of the networks, predicted from the other two thirds.

    The pull and the intervals are chosen inside of each split, from its own training networks.
    """
    for split in range(splits):
        test = _test_nets(rows, np.random.default_rng([seed, split]))
        train = [row for row in rows if row.net not in test]
        pull, residuals = chosen_pull(train, bounds)
        spread = Spread.of(train, residuals)
        model = fit(train, pull=pull, bounds=bounds)
        yield [
            held(row, model, spread) for row in rows if row.net in test and row.device.name in model.devices
        ]


def leave_one_net_out(rows: list[Row], bounds: Bounds = OF_COUNTS) -> list[Held]:
    """Predict every network by weights from all others; pull and intervals are chosen on all networks."""
    pull, residuals = chosen_pull(rows, bounds)
    spread = Spread.of(rows, residuals)
    found = []
    for net in sorted({row.net for row in rows}):
        model = fit([row for row in rows if row.net != net], pull=pull, bounds=bounds)
        found += [held(row, model, spread) for row in rows if row.net == net]
    return found


def leave_one_device_out(rows: list[Row]) -> dict[str, list[float]]:
    """Return the relative errors on each device when its kind's other devices alone are known.

    Devices whose core is on no other device are left out.
    """
    found: dict[str, list[float]] = {}
    cores = {row.device.name: row.device.core for row in rows}
    for name, core in cores.items():
        if sum(other == core for other in cores.values()) < 2:
            continue
        mine = [row for row in rows if row.device.name == name]
        kind = mine[0].device.kind
        kin = [row for row in rows if row.device.kind == kind and row.device.name != name]
        weights = fit_new_device(kin, [], core=core, pull=0.0)
        found[name] = [predicted_cycles(weights, row) / row.cycles - 1 for row in mine]
    return found


def learning_curve(rows: list[Row], *, splits: int, seed: int) -> dict[int, float]:
    """Return the median relative error on a device by how many rows of its own are known.

    Networks are held out as in `outer_hold_out`; the other devices of its kind are known. Devices without kin
    are left out.
    """
    errors: dict[int, list[float]] = {known: [] for known in OWN_ROWS}
    for split in range(splits):
        generator = np.random.default_rng([seed, split])
        test = _test_nets(rows, generator)
        for name in sorted({row.device.name for row in rows}):
            mine = [row for row in rows if row.device.name == name]
            train = [row for row in rows if row.net not in test]
            kin = [row for row in train if row.device.kind == mine[0].device.kind and row.device.name != name]
            own = [row for row in mine if row.net not in test]
            if not kin or len(own) < max(OWN_ROWS):
                continue
            order = generator.permutation(len(own))
            for known, found in errors.items():
                few = [own[i] for i in order[:known]]
                weights = fit_new_device(kin, few, core=mine[0].device.core, pull=PULLS[-1])
                tested = [row for row in mine if row.net in test]
                found += [abs(predicted_cycles(weights, row) / row.cycles - 1) for row in tested]
    return {known: float(np.median(found)) for known, found in errors.items() if found}


def _test_nets(rows: list[Row], generator: np.random.Generator) -> set[str]:
    nets = sorted({row.net for row in rows})
    return set(generator.choice(nets, round(len(nets) * _TEST_SHARE), replace=False))


def chosen_pull(rows: list[Row], bounds: Bounds = OF_COUNTS) -> tuple[float, NDArray[np.float64]]:
    """Return the pull with the least mean error in folds by network, and the log errors of its folds.

    An error is NaN where a row's kind had no other network to learn from.
    """
    nets = sorted({row.net for row in rows})
    fold_of = {net: index % _FOLDS for index, net in enumerate(nets)}
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for pull in PULLS:
        residuals = np.zeros(len(rows))
        for fold in range(_FOLDS):
            model = fit([row for row in rows if fold_of[row.net] != fold], pull=pull, bounds=bounds)
            for index, row in enumerate(rows):
                if fold_of[row.net] == fold:
                    residuals[index] = _log_error(model, row)
        error = float(np.nanmean(np.abs(np.expm1(-residuals))))
        if best is None or error < best[0]:
            best = error, pull, residuals
    assert best is not None  # noqa: S101  PULLS is not empty
    return best[1], best[2]


def _log_error(model: Fit, row: Row) -> float:
    weights = model.devices.get(row.device.name, model.kinds.get(row.device.kind))
    if weights is None:
        return float("nan")
    return float(np.log(row.cycles / max(predicted_cycles(weights, row), 1.0)))


class Spread(NamedTuple):
    """How wide intervals must be: each device's scale of log errors, and quantiles of error / scale.

    Split conformal prediction with normalised scores (Lei et al., JASA 2018, section 5.2), the errors being
    those of cross-validation by network; a device's scale is drawn towards its kind's.
    """

    scales: dict[str, float]
    quantile: float
    worst: float

    @classmethod
    def of(cls, rows: list[Row], residuals: NDArray[np.float64]) -> "Spread":
        """Return the spread that errors `residuals`, float64 [len(rows)], ask for; NaN tells nothing."""
        known = ~np.isnan(residuals)
        rows, residuals = [row for row, told in zip(rows, known, strict=True) if told], residuals[known]
        names = np.array([row.device.name for row in rows])
        kinds = np.array([row.device.kind for row in rows])
        scales = {}
        for name in sorted(set(names)):
            mine, kind = np.abs(residuals[names == name]), kinds[names == name][0]
            common = np.abs(residuals[kinds == kind])
            scales[name] = float((mine.sum() + _OF_KIND * common.mean()) / (len(mine) + _OF_KIND))
        scores = np.sort(np.abs(residuals) / np.array([scales[name] for name in names]))
        rank = min(int(np.ceil(COVERAGE * (len(scores) + 1))), len(scores)) - 1
        return cls(scales, float(scores[rank]), float(scores[-1]))

    def interval(self, device: str, value: float) -> tuple[float, float]:
        """Return the interval around a predicted value."""
        width = np.exp(self.quantile * self.scales[device])
        return float(value / width), float(value * width)


_OF_KIND = 8.0
"""How many rows the kind's mean error counts for in a device's own."""


def held(row: Row, model: Fit, spread: Spread) -> Held:
    """Predict a row."""
    predicted_ms = predicted_cycles(model.devices[row.device.name], row) / (row.device.clock_mhz * 1e3)
    return Held(row, predicted_ms, *spread.interval(row.device.name, predicted_ms))


class Errors(NamedTuple):
    """Relative errors in brief, all in shares of one; `covered` is the intervals' share of hits."""

    rows: int
    mean: float
    median: float
    p90: float
    worst: float
    covered: float


def in_brief(found: Iterable[Held]) -> Errors:
    """Summarise predictions."""
    several = list(found)
    errors = np.abs([one.error for one in several])
    covered = float(np.mean([one.covered for one in several]))
    return Errors(
        len(several),
        float(errors.mean()),
        float(np.median(errors)),
        float(np.quantile(errors, 0.9)),
        float(errors.max()),
        covered,
    )
