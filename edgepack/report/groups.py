"""What each group of users loses, a column for each recipe and each candidate that ships."""

from edgepack.report import units, views
from edgepack.results import BuildResult, GroupQuality

NOTE = (
    "Drop with its 95 % interval (paired bootstrap over the group's users), then overlap@10 with the float "
    "model's lists. Histories are cut at their quartiles; head items hold half of the training events, head "
    "and middle 80 %. Served: users for whom the float model scores above 0; they alone can lose."
)


def header(result: BuildResult) -> tuple[str, ...]:
    """Return the table's column names."""
    return ("group", "users", "served", *_columns(result))


def rows(result: BuildResult) -> list[tuple[str, ...]]:
    """Return a row for each group, the same groups whichever candidate was ranked; none without groups."""
    found = _columns(result)
    groups = dict.fromkeys((one.by, one.group) for column in found.values() for one in column)
    by_place = [{(one.by, one.group): one for one in column} for column in found.values()]
    return [_row(result, key, [column.get(key) for column in by_place]) for key in groups]


def _columns(result: BuildResult) -> dict[str, tuple[GroupQuality, ...]]:
    """Return the groups by what lost: every recipe's file, then shipped ones that stand for no recipe."""
    found = {row.name: row.groups for row in result.rows if row.groups}
    for target in result.targets:
        shown = views.shown_candidate(target)
        if shown is None or shown.quality is None or shown.quality.groups in found.values():
            continue
        if shown.quality.groups:
            found[f"{shown.artifact.recipe} ({shown.artifact.format}, {target.target})"] = (
                shown.quality.groups
            )
    return found


def _row(result: BuildResult, key: tuple[str, str], cells: list[GroupQuality | None]) -> tuple[str, ...]:
    one = next(cell for cell in cells if cell is not None)
    served = one.served.get(result.gate_metric, 0)
    told = [_cell(cell, result.gate_metric) for cell in cells]
    return (f"{key[0]}: {key[1]}", f"{one.users:,}", f"{served:,}", *told)


def _cell(group: GroupQuality | None, metric: str) -> str:
    if group is None:
        return units.NOT_MEASURED
    lost = units.drop(group.drops[metric]) if metric in group.drops else "nothing to lose"
    return f"{lost}; {group.overlap_at_10.value:.3f}"
