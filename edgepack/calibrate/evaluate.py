"""How far a device model errs on networks and on devices that it never saw."""

from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

import msgspec
import numpy as np
from scipy.stats import binomtest

from edgepack.calibrate.crossed import COVERAGE, Choice, calibrated, chosen, log_error
from edgepack.calibrate.fit import OF_ARITHMETIC, Weights, by, drawn, fit
from edgepack.calibrate.rows import Row
from edgepack.latency.devices import Device
from edgepack.latency.model import Transfer, alike, cycles, rank

OWN_ROWS = (0, 1, 3, 5, 10)
PULL_OF_OWN_ROWS = 1.0
"""Few rows of its own tell a device's factor, hardly its shape."""
_TEST_SHARE = 1 / 3
_CURVE_SPLITS = 5
_FOLDS_OF_UNSEEN = 4


class Held(NamedTuple):
    """One row predicted by a model that never saw its network, with its interval (NaN: none)."""

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


Predictor = Callable[[list[Row], list[Row]], list[Held]]
"""Learns from its first rows and predicts those of its second whose device it learnt."""


def by_counts(train: list[Row], test: list[Row]) -> list[Held]:
    """Predict by counts; features, pull and interval are chosen from `train` alone."""
    model = calibrated(train, chosen(train))
    found = []
    for row in test:
        if row.device.name in model:
            of_row = cycles(model[row.device.name], row.features, COVERAGE)
            khz = row.device.clock_mhz * 1e3
            found.append(Held(row, of_row.value / khz, of_row.low / khz, of_row.high / khz))
    return found


def by_arithmetic(train: list[Row], test: list[Row]) -> list[Held]:
    """Predict by multiply-accumulates and weights, which stand in the rows' features."""
    choice = chosen(train, (OF_ARITHMETIC,))
    model = fit(train, pull=choice.pull, bounds=choice.bounds)
    nan = float("nan")
    return [
        Held(row, row.avg_ms * float(np.exp(-log_error(model[row.device.name], row))), nan, nan)
        for row in test
        if row.device.name in model
    ]


def outer_hold_out(
    rows: list[Row], *, splits: int, seed: int, predictor: Predictor = by_counts
) -> Iterator[list[Held]]:
    """Yield, split by split, the rows of a third of the networks, predicted from the other two thirds."""
    for split in range(splits):
        test = _test_nets(rows, np.random.default_rng([seed, split]))
        yield _predicted(rows, test, predictor)


def leave_one_net_out(rows: list[Row], predictor: Predictor = by_counts) -> Iterator[list[Held]]:
    """Yield every network's rows, predicted from all others; nothing is chosen with it in view."""
    for net in sorted({row.net for row in rows}):
        yield _predicted(rows, {net}, predictor)


def _predicted(rows: list[Row], test: set[str], predictor: Predictor) -> list[Held]:
    train = [row for row in rows if row.net not in test]
    return predictor(train, [row for row in rows if row.net in test])


class Unseen(NamedTuple):
    """Logarithms of true / predicted on one device of which no row was known, nor the network: by devices
    with its core (none: there is no such), and by those of its kind that have another core."""

    device: Device
    by_core: list[float]
    by_kind: list[float]


def leave_one_device_out(rows: list[Row], choice: Choice) -> list[Unseen]:
    """Predict each device from the others of its kind, by folds of networks that were left out, too."""
    nets = sorted({row.net for row in rows})
    found = []
    for mine in by(rows, lambda row: row.device.name).values():
        device = mine[0].device
        kin = [row for row in rows if row.device.kind == device.kind and row.device.name != device.name]
        same = any(row.device.core == device.core for row in kin)
        one = Unseen(device, [], [])
        for fold in range(_FOLDS_OF_UNSEEN):
            left_out = set(nets[fold::_FOLDS_OF_UNSEEN])
            tests = [row for row in mine if row.net in left_out]
            known = [row for row in kin if row.net not in left_out]
            if same:
                one.by_core.extend(_guessed(device, known, choice, tests))
            others = [row for row in known if row.device.core != device.core]
            one.by_kind.extend(_guessed(device, others, choice, tests))
        found.append(one)
    return found


def _guessed(device: Device, known: list[Row], choice: Choice, tests: list[Row]) -> list[float]:
    if not known:
        return []
    weights = _of_kin(device, known, choice)
    return [log_error(weights, row) for row in tests]


def _of_kin(device: Device, known: list[Row], choice: Choice) -> Weights:
    """Return what the devices in `known` rows have in common, as `latency.model.known_of` does."""
    weights = fit(known, pull=choice.pull, bounds=choice.bounds)
    devices = {row.device.name: row.device for row in known}
    old = {name for name, of in by(known, lambda row: row.device.name).items() if of[0].is_old}
    kin = alike(device, devices.values(), old)
    mean: Weights = np.mean([weights[one.name] for one in kin], axis=0)
    return mean


def errors_by_own_rows(rows: list[Row], choice: Choice, *, seed: int) -> dict[int, list[float]]:
    """Return logarithms of true / predicted on each device by how many rows of its own are known.

    Networks are held out as in `outer_hold_out`; the other devices of its kind are known. Devices without kin
    or with too few rows are left out.
    """
    errors: dict[int, list[float]] = {known: [] for known in OWN_ROWS}
    for split in range(_CURVE_SPLITS):
        generator = np.random.default_rng([seed, split])
        test = _test_nets(rows, generator)
        for mine in by(rows, lambda row: row.device.name).values():
            device = mine[0].device
            of_kind = [row for row in rows if row.device.kind == device.kind and row.net not in test]
            kin = [row for row in of_kind if row.device.name != device.name]
            own = [row for row in mine if row.net not in test]
            tests = [row for row in mine if row.net in test]
            if not kin or len(own) < max(OWN_ROWS):
                continue
            guess = _of_kin(device, kin, choice)
            order = generator.permutation(len(own))
            for known, found in errors.items():
                few = [own[index] for index in order[:known]]
                weights = drawn(few, guess, PULL_OF_OWN_ROWS) if few else guess
                found += [log_error(weights, row) for row in tests]
    return errors


def transfer(unseen: list[Unseen], own_rows: dict[int, list[float]]) -> Transfer:
    """Return how wide intervals of a device without rows, or with few, must be to cover what was found."""
    return Transfer(
        same_core=_width([error for one in unseen for error in one.by_core]),
        same_kind=_width([error for one in unseen for error in one.by_kind]),
        by_own_rows={known: _width(errors) for known, errors in own_rows.items() if known},
    )


def _width(errors: list[float]) -> float:
    sizes = sorted(map(abs, errors)) or [0.0]
    return round(sizes[rank(len(sizes), COVERAGE)], 6)


def twins(rows: list[Row]) -> dict[str, float]:
    """Return by how much the published rows of a device differ from those of its likest twin.

    Twins have the same core; a factor between them is taken off, and the 90th percentile over networks
    is what stays: kernels of another year, memory, scheduling, noise.
    """
    found: dict[str, float] = {}
    groups = by(rows, lambda row: row.device.name)
    cycles_of = {name: {row.net: row.cycles for row in mine} for name, mine in groups.items()}
    cores = {row.device.name: row.device.core for row in rows}
    for one, other in combinations(sorted(cores), 2):
        if cores[one] == cores[other]:
            shared = sorted(cycles_of[one].keys() & cycles_of[other].keys())
            ratios = np.log([cycles_of[one][net] / cycles_of[other][net] for net in shared])
            apart = float(np.expm1(np.quantile(np.abs(ratios - np.median(ratios)), 0.9)))
            for name in (one, other):
                found[name] = min(found.get(name, apart), apart)
    return found


def _test_nets(rows: list[Row], generator: np.random.Generator) -> set[str]:
    nets = sorted({row.net for row in rows})
    return set(generator.choice(nets, round(len(nets) * _TEST_SHARE), replace=False))


class Errors(msgspec.Struct, frozen=True, kw_only=True):
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
    return Errors(
        rows=len(several),
        mean=float(errors.mean()),
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
        worst=float(errors.max()),
        covered=float(np.mean([one.covered for one in several])),
    )


def chance(found: list[Held]) -> float:
    """Return how likely intervals that cover `COVERAGE` would miss or hit as unlikely often as `found`.

    A two-sided binomial test: it takes every row once, and rows whose networks were left out one by one.
    """
    hits = sum(one.covered for one in found)
    return float(binomtest(hits, len(found), COVERAGE).pvalue)
