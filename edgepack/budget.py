"""Hold figures against a budget: pure functions, no files. An unknown figure never passes."""

import msgspec

from edgepack.profiles import Budget
from edgepack.results import Measurement, Number, Provenance, Quality, Status, Verdict

UPPER_BOUND_SLACK = 0.02
"""How far the one-sided 95 % bound of a drop may stand above its budget (a paired test's allowance)."""

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
