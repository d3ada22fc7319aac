"""Hold figures against a budget: pure functions, no files. An unknown figure never passes."""

import msgspec

from edgepack.profiles import Budget
from edgepack.results import GroupQuality, Measurement, Number, Provenance, Quality, Status, Verdict

UPPER_BOUND_SLACK = 0.02
"""How far the one-sided 95 % bound of a drop may stand above its budget (a paired test's allowance)."""

GROUP_FACTOR = 5.0
"""How many times a metric's `max_drop` a group of users may lose, where the budget does not say."""
LEAST_GROUP_USERS = 100
"""Fewer users than these, whom the float model serves, are shown and not judged."""

_NUMBER_OF_LIMIT = {
    "instructions": "instructions",
    "l2_misses": "l2_misses",
    "peak_memory_bytes": "peak_memory_bytes",
    "latency_ms": "latency_p50_ms",
    "load_ms": "load_ms",
}


def judge(
    budget: Budget,
    *,
    model_bytes: int,
    download_bytes: int,
    measurement: Measurement,
    quality: Quality | None,
) -> tuple[Verdict, ...]:
    """Return one verdict for each limit that `budget` sets, in a fixed order."""
    sizes = {"model_bytes": model_bytes, "download_bytes": download_bytes}
    verdicts = [
        _at_most(name, allowed, found, "computed")
        for name, found in sizes.items()
        if (allowed := getattr(budget, name)) is not None
    ]
    verdicts += [
        _number_verdict(limit, allowed, measurement.get(number))
        for limit, number in _NUMBER_OF_LIMIT.items()
        if (allowed := getattr(budget, limit)) is not None
    ]
    verdicts += [_drop_verdict(metric, allowed, quality) for metric, allowed in budget.max_drop.items()]
    verdicts += _group_verdicts(budget, quality)
    if budget.min_overlap_at_10 is not None:
        verdicts.append(_overlap_verdict(budget.min_overlap_at_10, quality))
    return tuple(verdicts)


def _at_most(limit: str, allowed: float, found: float, provenance: Provenance, note: str = "") -> Verdict:
    status: Status = "within" if found <= allowed else "over"
    margin = (allowed - found) / allowed if allowed else None
    return Verdict(
        limit=limit,
        allowed=allowed,
        found=found,
        margin=margin,
        status=status,
        provenance=provenance,
        note=note,
    )


def _not_measured(limit: str, allowed: float, provenance: Provenance, why: str) -> Verdict:
    return Verdict(
        limit=limit,
        allowed=allowed,
        found=None,
        margin=None,
        status="not measured",
        provenance=provenance,
        note=why,
    )


def _number_verdict(limit: str, allowed: float, number: Number | None) -> Verdict:
    if number is None:
        return _not_measured(limit, allowed, "computed", "this target's measuring does not give it")
    if number.provenance == "modelled" and number.low is not None and number.high is not None:
        verdict = _bracketed(limit, allowed, number.low, number.high, number)
    elif number.value is None:
        return _not_measured(limit, allowed, number.provenance, number.source)
    else:
        verdict = _at_most(limit, allowed, number.value, number.provenance)
    return msgspec.structs.replace(verdict, low=number.low, high=number.high, error=number.error)


def _bracketed(limit: str, allowed: float, low: float, high: float, number: Number) -> Verdict:
    """Hold a modelled figure to its whole interval: it passes by the upper end, and fails by the lower."""
    status: Status = "within" if high <= allowed else "over" if low > allowed else "undecided"
    return Verdict(
        limit=limit,
        allowed=allowed,
        found=number.value,
        margin=(allowed - (low if status == "over" else high)) / allowed if allowed else None,
        status=status,
        provenance=number.provenance,
        note="the limit lies inside of the interval" if status == "undecided" else "",
    )


def _drop_verdict(metric: str, allowed: float, quality: Quality | None) -> Verdict:
    limit = f"drop of {metric}"
    if quality is None or metric not in quality.drops:
        return _not_measured(limit, allowed, "computed", f"{metric} is not defined for this evaluation")
    drop = quality.drops[metric]
    bound = allowed + UPPER_BOUND_SLACK
    holds = drop.value <= allowed and drop.upper <= bound
    return Verdict(
        limit=limit,
        allowed=allowed,
        found=drop.value,
        margin=min(allowed - drop.value, bound - drop.upper),
        status="within" if holds else "over",
        provenance="computed",
        note=f"95 % upper bound {drop.upper:.4f}, allowed {bound:.4f}",
    )


def _group_verdicts(budget: Budget, quality: Quality | None) -> list[Verdict]:
    """Judge the worst group of each limited metric.

    A limit that nobody wrote down binds once a group is large enough; one of the budget's own never passes
    unmeasured.
    """
    least = LEAST_GROUP_USERS if budget.least_group_users is None else budget.least_group_users
    implied = {metric: min(1.0, GROUP_FACTOR * allowed) for metric, allowed in budget.max_drop.items()}
    verdicts = []
    for metric, allowed in {**implied, **budget.max_group_drop}.items():
        groups = quality.groups if quality is not None else ()
        judged = [one for one in groups if metric in one.drops and one.served[metric] >= least]
        if judged:
            verdicts.append(_group_verdict(metric, allowed, judged, len(groups) - len(judged)))
        elif metric in budget.max_group_drop:
            why = f"no group of users has {least} whom the float model serves"
            verdicts.append(_not_measured(f"group drop of {metric}", allowed, "computed", why))
    return verdicts


def _group_verdict(metric: str, allowed: float, judged: list[GroupQuality], too_small: int) -> Verdict:
    bound = allowed + UPPER_BOUND_SLACK

    def margin(group: GroupQuality) -> float:
        drop = group.drops[metric]
        return min(allowed - drop.value, bound - drop.upper)

    worst = min(judged, key=margin)
    drop = worst.drops[metric]
    # A loss that its users are too few to rule out is not one that they show.
    status: Status = "over" if drop.value > allowed else "within" if drop.upper <= bound else "undecided"
    told = f"worst of {len(judged)} groups: {worst.by} {worst.group}, {worst.users:,} users"
    few = f"; {too_small} too small to judge" if too_small else ""
    return Verdict(
        limit=f"group drop of {metric}",
        allowed=allowed,
        found=drop.value,
        margin=margin(worst),
        status=status,
        provenance="computed",
        note=f"{told}, 95 % upper bound {drop.upper:.4f}, allowed {bound:.4f}{few}",
    )


def _overlap_verdict(least: float, quality: Quality | None) -> Verdict:
    if quality is None:
        return _not_measured("overlap@10", least, "computed", "the artifact was not ranked with")
    found = quality.overlap_at_10
    return Verdict(
        limit="overlap@10",
        allowed=least,
        found=found,
        margin=found - least,
        status="within" if found >= least else "over",
        provenance="computed",
        note="at least",
    )
