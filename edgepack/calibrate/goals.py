"""What a device model is meant to reach, and where it does not."""

import msgspec
import numpy as np

from edgepack.calibrate.cross_runtime import CrossRuntime
from edgepack.calibrate.evaluate import Errors, Unseen
from edgepack.latency.devices import Kind
from edgepack.latency.model import Transfer

UNSEEN_MEDIAN = 0.15
COVERED = (0.87, 0.93)
LEAST_CHANCE = 0.01
TIMES_BETTER = 2.0
OF_DEVICE: dict[Kind, tuple[float, float]] = {
    "ooo-a57": (0.05, 0.15),
    "in-order-a53": (0.08, 0.20),
    "in-order-a55": (0.08, 0.20),
    "ooo-a76": (0.08, 0.20),
    "ooo-x": (0.08, 0.20),
}
"""Median and 90th percentile of the relative error on networks that were held out; none for custom cores."""


class DeviceErrors(msgspec.Struct, frozen=True, kw_only=True):
    """One device in the outer hold-out: by counts, and by multiply-accumulates and weights alone.

    `unseen_median` is its median error when it was itself left out (None: no other device has its core);
    `chance` the binomial test of its intervals with networks left out one by one; `twin_p90` how far its
    likest twin's published rows are apart from its own (None: no other device has its core); `misses` names
    the goals that it misses.
    """

    device: str
    core: str
    kind: Kind
    clock_mhz: int
    is_old: bool
    stands_in: bool
    counts: Errors
    arithmetic: Errors
    unseen_median: float | None
    chance: float
    twin_p90: float | None
    misses: tuple[str, ...]


def missed(kind: Kind, counts: Errors, chance: float) -> tuple[str, ...]:
    """Return which goals a device misses."""
    median, p90 = OF_DEVICE.get(kind, (np.inf, np.inf))
    over = {"median": counts.median > median, "p90": counts.p90 > p90, "chance": chance < LEAST_CHANCE}
    return tuple(name for name, is_missed in over.items() if is_missed)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgepack calibrate --report` prints: shares of one, 0.1 is ten per cent."""

    splits: int
    rows: int
    devices: tuple[DeviceErrors, ...]
    hold_out: Errors
    hold_out_arithmetic: Errors
    leave_one_net_out: Errors
    leave_one_net_out_arithmetic: Errors
    unseen_device_median: float
    unseen_device_median_of_kind: float
    transfer: Transfer
    median_by_own_rows: dict[int, float]
    litert: CrossRuntime


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One goal, what was found, and whether that meets it."""

    goal: str
    found: str
    is_met: bool


def goals(report: Report) -> tuple[Goal, ...]:
    """Return every goal of a device model with what the report found."""
    judged = [one for one in report.devices if one.kind in OF_DEVICE]
    missed = [one for one in judged if {"median", "p90"} & set(one.misses)]
    rejected = [one.device for one in report.devices if one.chance < LEAST_CHANCE]
    times = report.hold_out_arithmetic.mean / report.hold_out.mean
    low, high = COVERED
    far = ", ".join(f"{one.device} {one.counts.median:.1%} / {one.counts.p90:.1%}" for one in missed)
    return (
        Goal(
            goal="a calibrated device's median and p90 at most 5 % / 15 % (A57 class), 8 % / 20 % (others)",
            found=f"{len(judged) - len(missed)} of {len(judged)} devices" + (f"; not {far}" if far else ""),
            is_met=not missed,
        ),
        Goal(
            goal=f"median error at most {UNSEEN_MEDIAN:.0%} on a device never seen whose core is on another",
            found=f"{report.unseen_device_median:.1%}",
            is_met=report.unseen_device_median <= UNSEEN_MEDIAN,
        ),
        Goal(
            goal=f"the 90 % interval covers {low:.0%} to {high:.0%} of all rows",
            found=f"{report.hold_out.covered:.1%} (networks left out one by one: "
            f"{report.leave_one_net_out.covered:.1%})",
            is_met=low <= report.hold_out.covered <= high,
        ),
        Goal(
            goal=f"no device whose coverage a binomial test at {LEAST_CHANCE:.0%} rejects",
            found=", ".join(rejected) or f"least chance {min(one.chance for one in report.devices):.1%}",
            is_met=not rejected,
        ),
        Goal(
            goal=f"mean error at least {TIMES_BETTER:g} times smaller than by arithmetic",
            found=f"{times:.1f} times",
            is_met=times >= TIMES_BETTER,
        ),
    )


def median_size(errors: list[float]) -> float:
    """Return the median relative error of logarithms of true / predicted."""
    return float(np.median(np.abs(np.expm1(-np.array(errors)))))


def unseen_median(unseen: list[Unseen], *, by_core: bool) -> float:
    """Return the median error over all rows of devices that were left out."""
    return median_size([e for one in unseen for e in (one.by_core if by_core else one.by_kind)])
