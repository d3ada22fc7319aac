"""Which groups the test users belong to: by history, by target, and those that the user declares.

User ids are joined here and go no further: what is kept is a number for each test user, in their order.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgepack.errors import DataError
from edgepack.profiles import convert_table
from edgepack.results import GroupQuality
from edgepack.stages import Place, named_in_config, versions
from edgepack.stages.logs import source_of, test_users
from edgepack.store import Kept, sha256_of, source_fingerprint, write_atomic

if TYPE_CHECKING:
    from edgepack.evaluate.groups import Grouping
    from edgepack.evaluate.ranking import Evaluation

MOST_GROUPS = 50
"""Groups of one declaration; a column with more is an id and no group."""


class _Labels(NamedTuple):
    """A declared grouping: its name, where it stands, and the label of each user who has one."""

    by: str
    where: str
    of: dict[str, str]


def groupings(place: Place, split: Kept) -> Kept:
    """Group the test users: `groups.npz` (int64 [users] a grouping) and `names.json`."""
    source = source_of(place.config.data, place.folder)
    table = _table(place)
    inputs = {
        "split": split.digest,
        "columns": [place.config.quality.group_columns, source.identity, source.columns],
        "table": sha256_of(table) if table else "",
        "code": source_fingerprint("evaluate/groups.py", "stages/groups.py"),
        "versions": versions("numpy"),
    }

    def make(folder: Path) -> None:
        import numpy as np

        found = [*_known(split), *_declared(place)]
        np.savez(folder / "groups.npz", **{str(number): one.member for number, one in enumerate(found)})
        write_atomic(folder / "names.json", msgspec.json.encode([(one.by, one.names) for one in found]))

    return place.store.produce("groups", inputs, make)


def losses(grouped: Kept, before: "Evaluation", after: "Evaluation", seed: int) -> tuple[GroupQuality, ...]:
    """Return what every group loses from `before`, the float model, to `after`."""
    import numpy as np

    from edgepack.evaluate.groups import Grouping, losses

    names = msgspec.json.decode((grouped.path / "names.json").read_bytes(), type=list[tuple[str, list[str]]])
    with np.load(grouped.path / "groups.npz") as stored:
        found = [Grouping(by, tuple(told), stored[str(number)]) for number, (by, told) in enumerate(names)]
    return losses(before, after, found, seed)


def _known(split: Kept) -> "Iterator[Grouping]":
    import numpy as np

    from edgepack.data.split import load_split
    from edgepack.evaluate.groups import by_activity, by_popularity

    whole, _ = load_split(split.path)
    yield by_activity(whole.test.history)
    yield by_popularity(whole.test.targets, np.bincount(whole.train.items, minlength=whole.item_count + 1))


def _declared(place: Place) -> "Iterator[Grouping]":
    from edgepack.evaluate.groups import declared

    labels = [*_from_table(place), *_from_log(place)]
    users = test_users(place) if labels else ()
    for one in labels:
        found = [one.of.get(user, "") for user in users]
        _check(one, found)
        yield declared(one.by, found)


def _check(labels: _Labels, found: list[str]) -> None:
    groups = len(set(found) - {""})
    if not groups:
        raise DataError(
            labels.where,
            f"'{labels.by}' names no group for any of the {len(found):,} test users",
            remedy="Write the users as they stand in the log.",
        )
    if groups > MOST_GROUPS:
        raise DataError(
            labels.where,
            f"'{labels.by}' makes {groups:,} groups",
            allowed=f"at most {MOST_GROUPS} can be reported",
            remedy="Put users into fewer groups.",
        )


def _table(place: Place) -> Path | None:
    name = place.config.quality.groups
    return None if name is None else named_in_config(place.folder, "quality.groups", name)


def _from_table(place: Place) -> Iterator[_Labels]:
    path = _table(place)
    if path is None:
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            head, *rows = csv.reader(stream)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(
            str(path), f"is no table of users ({error})", remedy="Write it as CSV in UTF-8, with a heading."
        ) from error
    for number, row in enumerate(rows, 2):
        if row and len(row) != len(head):
            raise DataError(
                f"{path}, line {number}",
                f"has {len(row)} columns",
                allowed=f"the heading has {len(head)}",
                remedy="Mend the line.",
            )
    if len(head) < 2:
        raise DataError(
            str(path), "has one column", allowed="the user, then at least one group", remedy="Add the groups."
        )
    for column, by in enumerate(head[1:], 1):
        yield _Labels(by, str(path), {row[0]: row[column] for row in rows if row})


def _from_log(place: Place) -> Iterator[_Labels]:
    from edgepack.data import read
    from edgepack.data.formats import read_table

    wanted = place.config.quality.group_columns
    source = source_of(place.config.data, place.folder)
    if wanted and (source.path is None or source.format in ("sequences", "double-colon")):
        raise DataError(
            f"quality.group_columns {', '.join(wanted)}",
            f"{source.name} has no columns besides the events",
            remedy="Give a CSV file of users and groups as quality.groups.",
        )
    columns = convert_table(source.columns, read.Columns, "edgepack.toml: data.columns")
    if not wanted:
        return
    table = read_table(Path(str(source.path)), [columns.user, *wanted], source.format)
    users = table.text(columns.user)
    for by in wanted:
        # The newest row of a user says where they belong.
        of = {user: label for user, label in zip(users, table.text(by), strict=True) if label}
        yield _Labels(by, str(source.path), of)
