"""Reads an interaction log, in one of seven formats, or refuses it by file, line and rule."""

import csv
import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from edgepack.data import xlsx
from edgepack.errors import DataError, did_you_mean


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


class _Table(NamedTuple):
    """Columns by their name in the file, and where record number i (from 0) stands in it."""

    columns: dict[str, pa.Array]
    place: Callable[[int], str]


SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "sequences",
    ".dat": "double-colon",
    ".xlsx": "xlsx",
}


def read(path: Path, columns: Columns | None = None, format: str | None = None) -> Events:
    """Return every row of the log at `path`; `format` is one of FORMATS, or None to go by the suffix.

    A trailing `.gz` is unpacked for all formats but Parquet. Raises DataError naming the file, the line
    and the rule for a line that breaks it; the columns found, for a column that is not there; and for a
    log without rows.
    """
    columns = columns or Columns()
    if not path.is_file():
        raise DataError(str(path), "there is no such file", remedy="Correct the path.")
    format = format or _format_of(path)
    if format not in FORMATS:
        raise DataError(
            str(path),
            f"'{format}' is no known format",
            allowed=f"known formats are {', '.join(FORMATS)}",
            remedy=f"{did_you_mean(format, list(FORMATS))}Name the format of the file.",
        )
    wanted = columns.named()
    if format == "sequences":
        wanted = {"user": "user", "item": "item"}
    elif format == "double-colon":
        wanted = {"user": "user", "item": "item", "time": "time"}
    try:
        table = FORMATS[format](path, list(wanted.values()))
    except UnicodeDecodeError:
        where = f"{path}, line {_first_line_not_utf8(path)}"
        raise DataError(where, "the text is not UTF-8", remedy="Convert the file to UTF-8.") from None
    except (OSError, EOFError) as error:
        raise DataError(str(path), f"cannot be read as {format}: {error}", remedy=_UTF8) from error
    return _events(path, table, wanted, columns.time_format)


_UTF8 = "Check that the file is whole, and its text in UTF-8."


def _format_of(path: Path) -> str:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in SUFFIXES:
        raise DataError(
            str(path),
            f"the suffix '{suffix}' does not tell the format",
            allowed=f"known suffixes are {', '.join(SUFFIXES)}",
            remedy=f"Name the format: {', '.join(FORMATS)}.",
        )
    return SUFFIXES[suffix.lower()]


def _events(path: Path, table: _Table, wanted: dict[str, str], time_format: str | None) -> Events:
    arrays = {role: table.columns[name] for role, name in wanted.items()}
    if len(arrays["item"]) == 0:
        raise DataError(str(path), "the log has no rows", remedy="Give a log with at least one event.")

    def text(role: str) -> NDArray[np.object_] | None:
        return _text(arrays[role]) if role in arrays else None

    def numbers(role: str) -> NDArray[np.float64] | None:
        return _numbers(path, table, wanted[role]) if role in arrays else None

    time = _time(path, table, wanted["time"], time_format) if "time" in arrays else None
    return Events(
        cast(NDArray[np.object_], text("user")),
        cast(NDArray[np.object_], text("item")),
        time,
        text("basket"),
        numbers("quantity"),
        numbers("price"),
        text("query"),
    )


def _text(column: pa.Array) -> NDArray[np.object_]:
    # Ids that became floats because one of them is missing ("17850.0") are whole numbers still.
    if pa.types.is_floating(column.type) and pc.all(pc.equal(pc.floor(column), column)).as_py():
        column = column.cast(pa.int64())
    filled = pc.fill_null(column.cast(pa.string()), "")
    return cast(NDArray[np.object_], pc.utf8_trim_whitespace(filled).to_numpy(zero_copy_only=False))


def _numbers(path: Path, table: _Table, name: str) -> NDArray[np.float64]:
    column = table.columns[name]
    if pa.types.is_string(column.type):
        column = pc.if_else(pc.equal(column, ""), None, column)
    try:
        numbers = column.cast(pa.float64())
    except pa.ArrowInvalid:
        raise _refused(path, table, name, "a number", _is_number) from None
    return cast(NDArray[np.float64], numbers.to_numpy(zero_copy_only=False))


def _time(path: Path, table: _Table, name: str, time_format: str | None) -> NDArray[np.int64]:
    column = table.columns[name]
    if column.null_count or (pa.types.is_string(column.type) and pc.any(pc.equal(column, "")).as_py()):
        raise _refused(path, table, name, "a time", bool)
    if pa.types.is_string(column.type):
        column = _parsed_time(path, table, name, time_format)
    elif not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        column = column.cast(pa.timestamp("s"), safe=False)
    return cast(NDArray[np.int64], column.cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False))


def _parsed_time(path: Path, table: _Table, name: str, time_format: str | None) -> pa.Array:
    column = table.columns[name]
    if time_format:
        parsed = pc.strptime(column, format=time_format, unit="s", error_is_null=True)
        if parsed.null_count:
            bad = int(pc.index(pc.is_null(parsed), True).as_py())
            raise _bad_value(path, table, name, bad, f"a time written as {time_format}")
        return parsed
    for kind in (pa.int64(), pa.float64(), pa.timestamp("s"), pa.timestamp("ns")):
        try:
            parsed = column.cast(kind)
        except pa.ArrowInvalid:
            continue
        return parsed.cast(pa.timestamp("s"), safe=False) if kind == pa.timestamp("ns") else parsed
    raise _refused(path, table, name, "epoch seconds or an ISO 8601 time", _is_time)


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def _is_time(text: str) -> bool:
    import datetime

    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return text.lstrip("-").isdigit()
    return True


def _refused(path: Path, table: _Table, name: str, rule: str, fits: Callable[[str], bool]) -> DataError:
    """Find the first value that breaks the rule; only a file that is refused anyway pays for the search."""
    values = table.columns[name].to_pylist()
    bad = next((i for i, value in enumerate(values) if value is None or not fits(str(value))), 0)
    return _bad_value(path, table, name, bad, rule)


def _bad_value(path: Path, table: _Table, name: str, record: int, rule: str) -> DataError:
    value = table.columns[name][record].as_py()
    return DataError(
        f"{path}, {table.place(record)}",
        f"column {name} holds {'nothing' if value in (None, '') else repr(value)}",
        allowed=f"it must hold {rule}",
        remedy="Correct the line, or map another column.",
    )


def _check_columns(path: Path, wanted: list[str], found: list[str]) -> None:
    for name in wanted:
        if name not in found:
            raise DataError(
                str(path),
                f"there is no column '{name}'",
                allowed=f"the columns are {', '.join(found)}",
                remedy=f"{did_you_mean(name, found)}Map the columns of the log to user, item, time.",
            )


def _open(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(_bytes(path), encoding="utf-8-sig", newline="")


def _bytes(path: Path) -> io.BufferedReader:
    return cast(io.BufferedReader, gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _first_line_not_utf8(path: Path) -> int:
    with _bytes(path) as lines:
        return next((i for i, line in enumerate(lines, start=1) if not _is_utf8(line)), 1)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_separated(path: Path, wanted: list[str], separator: str) -> _Table:
    with _open(path) as stream:
        header = next(csv.reader(stream, delimiter=separator), [])
    if not header:
        raise DataError(str(path), "the log is empty", remedy="Give a log with a header and events.")
    _check_columns(path, wanted, header)
    try:
        table = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise _unreadable_record(path, separator, len(header), error) from error
    columns = {name: table.column(name).combine_chunks() for name in wanted}
    return _Table(columns, lambda record: f"line {_line_of(path, separator, record)}")


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (the line a record ends on, its fields), without the header and blank lines."""
    with _open(path) as stream:
        rows = csv.reader(stream, delimiter=separator)
        next(rows)
        for row in rows:
            if row:
                yield rows.line_num, row


def _line_of(path: Path, separator: str, record: int) -> int:
    return next(line for i, (line, _) in enumerate(_records(path, separator)) if i == record)


def _unreadable_record(path: Path, separator: str, expected: int, error: pa.ArrowInvalid) -> DataError:
    for line, row in _records(path, separator):
        if len(row) != expected:
            return DataError(
                f"{path}, line {line}",
                f"it has {len(row)} fields",
                allowed=f"the header has {expected}",
                remedy="Correct the line: quote fields that hold the separator.",
            )
    return DataError(str(path), f"cannot be read: {str(error).splitlines()[0]}", remedy=_UTF8)


def _read_csv(path: Path, wanted: list[str]) -> _Table:
    return _read_separated(path, wanted, ",")


def _read_tsv(path: Path, wanted: list[str]) -> _Table:
    return _read_separated(path, wanted, "\t")


def _read_parquet(path: Path, wanted: list[str]) -> _Table:
    try:
        _check_columns(path, wanted, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path, columns=wanted)
    except pa.ArrowInvalid as error:
        raise DataError(str(path), "is no Parquet file", remedy="Check that the file is whole.") from error
    columns = {name: _plain(table.column(name).combine_chunks()) for name in wanted}
    return _Table(columns, lambda record: f"row {record + 1}")


def _plain(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _read_jsonl(path: Path, wanted: list[str]) -> _Table:
    decoder = msgspec.json.Decoder(dict[str, object])
    values: dict[str, list[str | None]] = {name: [] for name in wanted}
    seen: set[str] = set()
    lines: list[int] = []
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise _not_an_object(path, number, str(error)) from error
            seen.update(record)
            lines.append(number)
            for name in wanted:
                values[name].append(_scalar(path, number, name, record.get(name)))
    if lines:
        _check_columns(path, wanted, sorted(seen))
    columns = {name: pa.array(column, pa.string()) for name, column in values.items()}
    return _Table(columns, lambda record: f"line {lines[record]}")


def _not_an_object(path: Path, line: int, found: str) -> DataError:
    return DataError(
        f"{path}, line {line}",
        found,
        allowed="each line must be one JSON object",
        remedy="Correct the line.",
    )


def _scalar(path: Path, line: int, name: str, value: object) -> str | None:
    if isinstance(value, dict | list):
        raise _not_an_object(path, line, f"'{name}' holds a nested value")
    return None if value is None else str(value)


def _read_sequences(path: Path, wanted: list[str]) -> _Table:
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            words = line.split()
            if len(words) == 1:
                raise DataError(
                    f"{path}, line {number}",
                    "a user without items",
                    allowed="a line is a user and then at least one item, oldest first",
                    remedy="Correct or delete the line.",
                )
            users += words[:1] * (len(words) - 1)
            items += words[1:]
            lines += [number] * (len(words) - 1)
    columns = {"user": pa.array(users, pa.string()), "item": pa.array(items, pa.string())}
    return _Table(columns, lambda record: f"line {lines[record]}")


def _read_double_colon(path: Path, wanted: list[str]) -> _Table:
    """Read `user::item::rating::seconds`, MovieLens's own layout."""
    # To the CSV reader each "::" is two colons around an empty field.
    names = ["user", "", "item", " ", "rating", "  ", "time"]
    try:
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(column_names=names),
            parse_options=pyarrow.csv.ParseOptions(delimiter=":", quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        raise _unreadable_rating(path, error) from error
    columns = {name: table.column(name).combine_chunks() for name in wanted}
    return _Table(columns, lambda record: f"line {record + 1}")


def _unreadable_rating(path: Path, error: pa.ArrowInvalid) -> DataError:
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.count("::") + 1
            if fields != 4:
                return DataError(
                    f"{path}, line {number}",
                    f"it has {fields} fields",
                    allowed="a line is user::item::rating::seconds",
                    remedy="Correct the line.",
                )
    return DataError(str(path), f"cannot be read: {str(error).splitlines()[0]}", remedy=_UTF8)


def _read_xlsx(path: Path, wanted: list[str]) -> _Table:
    cells = xlsx.rows(path)
    header = next(cells, [])
    _check_columns(path, wanted, header)
    places = [header.index(name) for name in wanted]
    values = [[row[place] for place in places] for row in cells]
    columns = {name: pa.array([row[i] for row in values], pa.string()) for i, name in enumerate(wanted)}
    return _Table(columns, lambda record: f"row {record + 2}")


FORMATS: dict[str, Callable[[Path, list[str]], _Table]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
    "jsonl": _read_jsonl,
    "sequences": _read_sequences,
    "double-colon": _read_double_colon,
    "xlsx": _read_xlsx,
}
