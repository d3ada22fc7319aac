"""Reads the first sheet of an Excel workbook (Office Open XML), the layout that UCI hands its logs out in."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.etree import ElementTree

from edgepack.errors import DataError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_DATE_FORMATS = {*range(14, 23), *range(45, 48)}  # the built-in number formats that show a date or time
_EPOCH_DAY = 25_569  # 1970-01-01 as Excel counts days
_DAY_S = 86_400


def rows(path: Path) -> Iterator[list[str]]:
    """Yield the rows of the first sheet as text, "" for an empty cell; a date becomes epoch seconds.

    Raises DataError when the file is no workbook.
    """
    try:
        with zipfile.ZipFile(path) as book:
            shared = _shared_strings(book)
            dates = _date_styles(book)
            sheet = min(name for name in book.namelist() if name.startswith("xl/worksheets/sheet"))
            with book.open(sheet) as stream:
                yield from _rows(stream, shared, dates)
    except (zipfile.BadZipFile, ValueError, ElementTree.ParseError) as error:
        raise DataError(
            str(path), f"is no Excel workbook: {error}", remedy="Save it as .xlsx or .csv."
        ) from error


def _elements(stream: IO[bytes], tag: str) -> Iterator[ElementTree.Element]:
    # Expat bounds the expansion of entities; the workbook is one that the user chose.
    for _, element in ElementTree.iterparse(stream):  # noqa: S314
        if element.tag == _MAIN + tag:
            yield element
            element.clear()


def _shared_strings(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    with book.open("xl/sharedStrings.xml") as stream:
        return ["".join(part.text or "" for part in e.iter(_MAIN + "t")) for e in _elements(stream, "si")]


def _date_styles(book: zipfile.ZipFile) -> set[int]:
    """Return the numbers of the cell styles that show their number as a date."""
    if "xl/styles.xml" not in book.namelist():
        return set()
    root = ElementTree.fromstring(book.read("xl/styles.xml"))  # noqa: S314  as in _elements
    own = {int(e.get("numFmtId", 0)): e.get("formatCode", "") for e in root.iter(_MAIN + "numFmt")}
    dates = _DATE_FORMATS | {number for number, code in own.items() if re.search("[ydh]", code.lower())}
    styles = root.find(_MAIN + "cellXfs")
    return {
        i for i, e in enumerate(styles if styles is not None else ()) if int(e.get("numFmtId", 0)) in dates
    }


def _rows(stream: IO[bytes], shared: list[str], dates: set[int]) -> Iterator[list[str]]:
    width = 0
    for element in _elements(stream, "row"):
        cells = {
            _column(cell.get("r", "")): _value(cell, shared, dates) for cell in element.iter(_MAIN + "c")
        }
        width = width or max(cells, default=-1) + 1
        yield [cells.get(column, "") for column in range(width)]


def _column(reference: str) -> int:
    number = 0
    for letter in re.match("[A-Z]+", reference).group():  # type: ignore[union-attr]
        number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1


def _value(cell: ElementTree.Element, shared: list[str], dates: set[int]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(part.text or "" for part in cell.iter(_MAIN + "t"))
    text = cell.findtext(_MAIN + "v", "")
    if cell.get("t") == "s":
        return shared[int(text)]
    if text and cell.get("t") in (None, "n") and int(cell.get("s", 0)) in dates:
        return str(round((float(text) - _EPOCH_DAY) * _DAY_S))
    return text
