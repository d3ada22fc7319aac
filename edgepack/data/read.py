"""Reads an interaction log, in one of seven formats, or refuses it by file, line and rule."""

from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from edgepack.data.formats import Table, format_of, read_table
from edgepack.errors import DataError


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which column of the log holds what; None or an empty name where the log has no such column.

    `time` may hold whole epoch seconds (or any rising integers), ISO 8601 text, or text in `time_format`
    (strptime). Without `time` the order of the rows is the order of the events.
    """

    user: str = "user"
    item: str = "item"
    time: str | None = "time"
    basket: str | None = None
    quantity: str | None = None
    price: str | None = None
    query: str | None = None
    time_format: str | None = None

    def named(self) -> dict[str, str]:
        """Return {role: column name} of the columns that the log is said to have."""
        roles = ("user", "item", "time", "basket", "quantity", "price", "query")
        return {role: getattr(self, role) for role in roles if getattr(self, role)}


class Events(NamedTuple):
    """The rows of a log as they stand, one array a column, all of one length.

    `user`, `item`, `basket`, `query` (what was searched for before the event): object arrays of text, ""
    where the row has none; `time` int64; `quantity`, `price` float64, NaN where the row has none. None for a
    column the log does not have.
    """

    user: NDArray[np.object_]
    item: NDArray[np.object_]
    time: NDArray[np.int64] | None
    basket: NDArray[np.object_] | None
    quantity: NDArray[np.float64] | None
    price: NDArray[np.float64] | None
    query: NDArray[np.object_] | None = None


def read(path: Path, columns: Columns | None = None, format: str | None = None) -> Events:
    """Return every row of a log; `format` is one of `formats.FORMATS`, or None to go by the suffix.

    Raises DataError as `formats.read_table`, for a value that is no number or time, and for a log without
    rows.
    """
    columns = columns or Columns()
    wanted = columns.named()
    format = format_of(path, format)
    if format == "sequences":
        wanted = {"user": "user", "item": "item"}
    elif format == "double-colon":
        wanted = {"user": "user", "item": "item", "time": "time"}
    table = read_table(path, list(wanted.values()), format)
    if len(table.columns[wanted["item"]]) == 0:
        raise DataError(str(path), "the log has no rows", remedy="Give a log with at least one event.")

    def text(role: str) -> NDArray[np.object_] | None:
        return table.text(wanted[role]) if role in wanted else None

    def numbers(role: str) -> NDArray[np.float64] | None:
        return table.numbers(wanted[role]) if role in wanted else None

    return Events(
        cast(NDArray[np.object_], text("user")),
        cast(NDArray[np.object_], text("item")),
        _time(table, wanted["time"], columns.time_format) if "time" in wanted else None,
        text("basket"),
        numbers("quantity"),
        numbers("price"),
        text("query"),
    )


def _time(table: Table, name: str, time_format: str | None) -> NDArray[np.int64]:
    column = table.columns[name]
    if column.null_count or (pa.types.is_string(column.type) and pc.any(pc.equal(column, "")).as_py()):
        raise table.refusal(name, "a time", bool)
    if pa.types.is_string(column.type):
        column = _parsed_time(table, name, time_format)
    elif not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        column = column.cast(pa.timestamp("s"), safe=False)
    return cast(NDArray[np.int64], column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False))


def _parsed_time(table: Table, name: str, time_format: str | None) -> pa.Array:
    column = table.columns[name]
    if time_format:
        parsed = pc.strptime(column, format=time_format, unit="s", error_is_null=True)
        if parsed.null_count:
            bad = int(pc.index(pc.is_null(parsed), True).as_py())
            raise table.bad_value(name, bad, f"a time written as {time_format}")
        return parsed
    for kind in (pa.int64(), pa.float64(), pa.timestamp("s"), pa.timestamp("ns")):
        try:
            parsed = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        return parsed.cast(pa.timestamp("s"), safe=False) if kind == pa.timestamp("ns") else parsed
    raise table.refusal(name, "epoch seconds or an ISO 8601 time", _is_time)


def _is_time(text: str) -> bool:
    import datetime

    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return text.lstrip("-").isdigit()
    return True
