"""The seven formats of logs and product lists: a file becomes a table, or is refused by line and rule."""

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


class Table(NamedTuple):
    """The columns of the file at `path` by their names, and where record number i (from 0) stands in it."""

    path: Path
    columns: dict[str, pa.Array]
    place: Callable[[int], str]

    def text(self, name: str) -> NDArray[np.object_]:
        """Return a column as trimmed text, object [records], "" where the record has none."""
        column = self.columns[name]
        # Ids that became floats because one of them is missing ("17850.0") are whole numbers still.
        if pa.types.is_floating(column.type) and pc.all(pc.equal(pc.floor(column), column)).as_py():
            column = column.cast(pa.int64())
        filled = pc.fill_null(column.cast(pa.string()), "")
        return cast(NDArray[np.object_], pc.utf8_trim_whitespace(filled).to_numpy(zero_copy_only=False))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column as float64 [records], NaN where the record has none. Raises DataError."""
        column = self.columns[name]
        if pa.types.is_string(column.type):
            column = pc.if_else(pc.equal(column, ""), None, column)
        try:
            numbers = column.cast(pa.float64())
        except pa.ArrowInvalid:
            raise self.refusal(name, "a number", _is_number) from None
        return cast(NDArray[np.float64], numbers.to_numpy(zero_copy_only=False))

    def refusal(self, name: str, rule: str, fits: Callable[[str], bool]) -> DataError:
        """Find the first value that breaks the rule; only a file that is refused anyway pays for it."""
        values = self.columns[name].to_pylist()
        bad = next((i for i, value in enumerate(values) if value is None or not fits(str(value))), 0)
        return self.bad_value(name, bad, rule)

    def bad_value(self, name: str, record: int, rule: str) -> DataError:
        """Return the error that tells where the value of `record` stands and what it must hold."""
        value = self.columns[name][record].as_py()
        return DataError(
            f"{self.path}, {self.place(record)}",
            f"column {name} holds {'nothing' if value in (None, '') else repr(value)}",
            allowed=f"it must hold {rule}",
            remedy="Correct the line, or map another column.",
        )


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


def read_table(path: Path, names: list[str], format: str | None = None) -> Table:
    """Return the columns `names` of a file; `format` is one of FORMATS, or None to go by the suffix.

    A trailing `.gz` is unpacked for all formats but Parquet. Raises DataError naming the file, the line
    and the rule for a line that breaks it, and the columns found for a column that is not there.
    """
    format = format_of(path, format)
    try:
        return FORMATS[format](path, list(dict.fromkeys(names)))
    except UnicodeDecodeError:
        where = f"{path}, line {_first_line_not_utf8(path)}"
        raise DataError(where, "the text is not UTF-8", remedy="Convert the file to UTF-8.") from None
    except (OSError, EOFError) as error:
        raise DataError(str(path), f"cannot be read as {format}: {error}", remedy=_UTF8) from error


def format_of(path: Path, format: str | None) -> str:
    """Return `format` or what the suffix says. Raises DataError when there is no such file or format."""
    if not path.is_file():
        raise DataError(str(path), "there is no such file", remedy="Correct the path.")
    format = format or _told_by_suffix(path)
    if format not in FORMATS:
        raise DataError(
            str(path),
            f"'{format}' is no known format",
            allowed=f"known formats are {', '.join(FORMATS)}",
            remedy=f"{did_you_mean(format, list(FORMATS))}Name the format of the file.",
        )
    return format


_UTF8 = "Check that the file is whole, and its text in UTF-8."


def _told_by_suffix(path: Path) -> str:
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix.lower() not in SUFFIXES:
        raise DataError(
            str(path),
            f"the suffix '{suffix}' does not tell the format",
            allowed=f"known suffixes are {', '.join(SUFFIXES)}",
            remedy=f"Name the format: {', '.join(FORMATS)}.",
        )
    return SUFFIXES[suffix.lower()]


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def _check_columns(path: Path, wanted: list[str], found: list[str]) -> None:
    for name in wanted:
        if name not in found:
            raise DataError(
                str(path),
                f"there is no column '{name}'",
                allowed=f"the columns are {', '.join(found)}",
                remedy=f"{did_you_mean(name, found)}Map the columns to those that the file has.",
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


def _read_separated(path: Path, wanted: list[str], separator: str) -> Table:
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
    return Table(path, columns, lambda record: f"line {_line_of(path, separator, record)}")


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


def _read_csv(path: Path, wanted: list[str]) -> Table:
    return _read_separated(path, wanted, ",")


def _read_tsv(path: Path, wanted: list[str]) -> Table:
    return _read_separated(path, wanted, "\t")


def _read_parquet(path: Path, wanted: list[str]) -> Table:
    try:
        _check_columns(path, wanted, pyarrow.parquet.read_schema(path).names)
        table = pyarrow.parquet.read_table(path, columns=wanted)
    except pa.ArrowInvalid as error:
        raise DataError(str(path), "is no Parquet file", remedy="Check that the file is whole.") from error
    columns = {name: _plain(table.column(name).combine_chunks()) for name in wanted}
    return Table(path, columns, lambda record: f"row {record + 1}")


def _plain(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.string()) if pa.types.is_large_string(column.type) else column


def _read_jsonl(path: Path, wanted: list[str]) -> Table:
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
    return Table(path, columns, lambda record: f"line {lines[record]}")


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


def _read_sequences(path: Path, wanted: list[str]) -> Table:
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
    return Table(path, columns, lambda record: f"line {lines[record]}")


def _read_double_colon(path: Path, wanted: list[str]) -> Table:
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
    return Table(path, columns, lambda record: f"line {record + 1}")


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


def _read_xlsx(path: Path, wanted: list[str]) -> Table:
    cells = xlsx.rows(path)
    header = next(cells, [])
    _check_columns(path, wanted, header)
    places = [header.index(name) for name in wanted]
    values = [[row[place] for place in places] for row in cells]
    columns = {name: pa.array([row[i] for row in values], pa.string()) for i, name in enumerate(wanted)}
    return Table(path, columns, lambda record: f"row {record + 2}")


FORMATS: dict[str, Callable[[Path, list[str]], Table]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
    "jsonl": _read_jsonl,
    "sequences": _read_sequences,
    "double-colon": _read_double_colon,
    "xlsx": _read_xlsx,
}
