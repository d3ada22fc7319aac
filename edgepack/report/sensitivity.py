"""What each layer and each group of the table's rows costs alone, as table rows."""

from edgepack.report import units
from edgepack.results import Sensitivity

HEADER = ("compressed alone", "weights", "drop of NDCG@10", "overlap@10")


def heading(one: Sensitivity) -> str:
    """Return what was done to each unit."""
    return f"Loss of each layer alone, rounded to {one.bits} bits, on {one.users:,} validation users"


def rows(one: Sensitivity) -> list[tuple[str, ...]]:
    """Return a row for each unit, the worst first."""
    return [
        (unit.unit, f"{unit.weights:,}", units.drop(unit.drop), units.estimate(unit.overlap_at_10))
        for unit in one.units
    ]
