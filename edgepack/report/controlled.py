"""What accuracy control chose for each layer and each band of the item table's rows, as table rows."""

from edgepack.report import units
from edgepack.results import Controlled

HEADER = ("unit", "precision", "download", "at 8 bits", "drop of NDCG@10 alone", "overlap@10 alone")


def heading(one: Controlled) -> str:
    """Return which recipe it is about."""
    return f"Accuracy control of {one.recipe}"


def sentence(one: Controlled) -> str:
    """Return how the search ended and what all units together lose."""
    held = "within its tolerance" if one.within else "the nearest to its tolerance, which does not hold"
    return (
        f"{one.trials} trials on {one.users:,} validation users, before any training: {one.why}. All units "
        f"together, {held}: drop of NDCG@10 {units.percent(one.drop)}, overlap@10 {one.overlap_at_10:.3f}."
    )


def rows(one: Controlled) -> list[tuple[str, ...]]:
    """Return a row for each unit, the largest at 8 bits first."""
    return [
        (
            unit.unit,
            unit.precision,
            units.size(unit.deflate_bytes),
            units.size(unit.most_deflate_bytes),
            "not tried" if unit.drop is None else units.percent(unit.drop),
            "" if unit.overlap_at_10 is None else f"{unit.overlap_at_10:.3f}",
        )
        for unit in sorted(one.units, key=lambda unit: -unit.most_deflate_bytes)
    ]
