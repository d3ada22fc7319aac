"""Public data sets by name: whose they are and under which terms; takes in the copy that the user got.

Nothing is downloaded and nothing ships: the owners' terms are between them and the user. The SHA-256 of a
copy is the one that was computed when it was taken in.
"""

import json
import shutil
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from edgepack import store, tools
from edgepack.config import CatalogueConfig
from edgepack.data import clean
from edgepack.data.clean import CleaningRules
from edgepack.data.read import Columns, read
from edgepack.errors import DataError, did_you_mean


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which a set is handed out: what its file is called, and how it is read."""

    file: str
    format: str
    columns: Columns = Columns()
    catalogue: CatalogueConfig | None = None


class PublicSet(msgspec.Struct, frozen=True, kw_only=True):
    """One public set. `users`, `items`, `events` are what `cleaning` leaves of a whole copy."""

    page: str
    about: str
    licence: str
    redistributable: bool
    layouts: tuple[Layout, ...]
    cleaning: CleaningRules
    split: str
    users: int
    items: int
    events: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A user's copy of a public set, and the SHA-256 that was computed over it."""

    path: Path
    format: str
    columns: Columns
    sha256: str
    catalogue: CatalogueConfig | None = None


_INVOICES = Columns(
    user="CustomerID",
    item="StockCode",
    time="InvoiceDate",
    basket="InvoiceNo",
    quantity="Quantity",
    price="UnitPrice",
)
_PRODUCTS = CatalogueConfig(
    title="Description",
    price="UnitPrice",
    currency="GBP",
    notice="Titles and prices, of each product the most common: Online Retail, Daqing Chen, 2015, "
    "https://doi.org/10.24432/C5BW33, under CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
)
_CLEANED = Columns(user="user", item="item", time="minute", basket="invoice", quantity="qty", price="price")
_REVIEWS = "Amazon reviews carry no open licence: research use, cite McAuley et al.; do not redistribute"

SETS: dict[str, PublicSet] = {
    "online-retail": PublicSet(
        page="https://archive.ics.uci.edu/dataset/352/online+retail",
        about="Invoices of a British gift shop, 2010-12 to 2011-12. Chen, 2015, doi:10.24432/C5BW33.",
        licence="CC BY 4.0",
        redistributable=True,
        layouts=(
            Layout(file="online_retail.parquet", format="parquet", columns=_INVOICES, catalogue=_PRODUCTS),
            Layout(file="online*retail.xlsx", format="xlsx", columns=_INVOICES, catalogue=_PRODUCTS),
            Layout(file="events.csv.gz", format="csv", columns=_CLEANED),
        ),
        cleaning=CleaningRules(cancelled_prefix="C", product_pattern=r"^\d{5}"),
        split="next-basket",
        users=4_334,
        items=3_659,
        events=386_326,
    ),
    "movielens-1m": PublicSet(
        page="https://grouplens.org/datasets/movielens/1m/",
        about="Film ratings, all taken as events. Harper & Konstan, 2015, doi:10.1145/2827872.",
        licence="GroupLens terms: research use, no commercial use, do not redistribute",
        redistributable=False,
        layouts=(
            Layout(file="ratings.dat", format="double-colon"),
            Layout(file="sequences.txt.gz", format="sequences"),
        ),
        cleaning=CleaningRules(min_item_events=5),
        split="leave-one-out",
        users=6_040,
        items=3_416,
        events=999_611,
    ),
    "amazon-beauty-bert4rec": PublicSet(
        page="https://github.com/FeiSun/BERT4Rec (data/beauty.txt)",
        about="Reviews of beauty products as BERT4Rec's authors prepared them. Sun et al., 2019.",
        licence=_REVIEWS,
        redistributable=False,
        layouts=(
            Layout(file="beauty.txt", format="sequences"),
            Layout(file="sequences.txt.gz", format="sequences"),
        ),
        cleaning=CleaningRules(),
        split="leave-one-out",
        users=40_226,
        items=54_542,
        events=353_962,
    ),
    "amazon-beauty-5core": PublicSet(
        page="https://github.com/salesforce/ICLRec (data/Beauty.txt)",
        about="Another Beauty: users and items with five or more reviews, as in S3-Rec and ICLRec.",
        licence=_REVIEWS,
        redistributable=False,
        layouts=(
            Layout(file="beauty.txt", format="sequences"),
            Layout(file="beauty.txt.gz", format="sequences"),
        ),
        cleaning=CleaningRules(),
        split="leave-one-out",
        users=22_363,
        items=12_101,
        events=198_502,
    ),
}


def known(name: str) -> PublicSet:
    """Return the set called `name`. Raises DataError with the nearest name when there is none."""
    if name not in SETS:
        raise DataError(
            f"public set '{name}'",
            "there is no set of that name",
            allowed=f"known sets are {', '.join(SETS)}",
            remedy=f"{did_you_mean(name, list(SETS))}Or give the log by its path.",
        )
    return SETS[name]


def describe(name: str) -> str:
    """Return where a set comes from, its terms and layouts, as lines of text. Raises as `known`."""
    found = known(name)
    files = ", ".join(layout.file for layout in found.layouts)
    return (
        f"{name}: {found.about}\n"
        f"  owner's page  {found.page}\n"
        f"  licence       {found.licence}\n"
        f"  layout        {files}; as it is or in a .zip\n"
        f"  after cleaning {found.users:,} users, {found.items:,} items, {found.events:,} events\n"
        f"Get a copy there, then: edgepack data {name} --from PATH\n"
    )


def take(name: str, source: Path, as_json: bool = False) -> str:
    """Copy the user's file of a set to where builds find it; return what was taken, as text or JSON.

    `source` is a file of one of the set's layouts, a .zip with one, or a folder with one. Raises
    DataError when there is none, or when what is left after cleaning is not the set's size.
    """
    found = known(name)
    folder = _home(name)
    folder.mkdir(parents=True, exist_ok=True)
    layout, path = _copied(name, source, folder)
    _check_size(name, found, layout, path)
    record = {"file": path.name, "layout": layout.file, "sha256": store.sha256_of(path)}
    store.write_atomic(folder / "taken.json", json.dumps(record, sort_keys=True).encode())
    facts = {"set": name, **record, "bytes": path.stat().st_size, "licence": found.licence}
    if as_json:
        return json.dumps(facts, sort_keys=True) + "\n"
    return f"{name}: took {path.name}, {facts['bytes']:,} bytes, sha256 {record['sha256']}\n{found.licence}\n"


def taken(name: str) -> Taken:
    """Return the user's copy of a set. Raises DataError when it was not taken in, or has changed since."""
    found = known(name)
    try:
        record = json.loads((_home(name) / "taken.json").read_bytes())
        path = _home(name) / record["file"]
        layout = next(layout for layout in found.layouts if layout.file == record["layout"])
        same = store.sha256_of(path) == record["sha256"]
    except (OSError, ValueError, KeyError, StopIteration):
        raise DataError(
            f"public set '{name}'",
            "no copy of it was taken in",
            remedy=f"Get one from {found.page}, then run `edgepack data {name} --from PATH`.",
        ) from None
    if not same:
        raise DataError(
            str(path),
            "it is not the file that was taken in",
            remedy=f"Run `edgepack data {name} --from PATH`.",
        )
    return Taken(
        path=path,
        format=layout.format,
        columns=layout.columns,
        sha256=record["sha256"],
        catalogue=layout.catalogue,
    )


def _home(name: str) -> Path:
    return tools.home() / "sets" / name


def _copied(name: str, source: Path, folder: Path) -> tuple[Layout, Path]:
    """Copy the first file under `source` that a layout names into `folder`."""
    if source.suffix == ".zip":
        return _unpacked(name, source, folder)
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    layout, file = _matching(name, source, [file.name for file in files])
    path = folder / file
    shutil.copyfile(source / file if source.is_dir() else source, path)
    return layout, path


def _unpacked(name: str, source: Path, folder: Path) -> tuple[Layout, Path]:
    try:
        with zipfile.ZipFile(source) as archive:
            members = {Path(member).name: member for member in archive.namelist()}
            layout, file = _matching(name, source, list(members))
            with archive.open(members[file]) as packed, (folder / file).open("wb") as copy:
                shutil.copyfileobj(packed, copy)
    except zipfile.BadZipFile as error:
        raise DataError(str(source), "is no .zip archive", remedy="Download it again.") from error
    return layout, folder / file


def _matching(name: str, source: Path, files: list[str]) -> tuple[Layout, str]:
    for layout in SETS[name].layouts:
        for file in files:
            if fnmatch(file.lower(), layout.file):
                return layout, file
    raise DataError(
        str(source),
        f"holds no file of {name}",
        allowed=f"it is one of {', '.join(layout.file for layout in SETS[name].layouts)}",
        remedy=f"Get it from {SETS[name].page}.",
    )


def _check_size(name: str, found: PublicSet, layout: Layout, path: Path) -> None:
    """Two sets share the file name beauty.txt; their sizes tell them apart."""
    _, report = clean.clean(read(path, layout.columns, layout.format), found.cleaning)
    size = (report.users, report.items, report.events)
    if size != (found.users, found.items, found.events):
        path.unlink()
        raise DataError(
            str(path.name),
            "after cleaning it has {:,} users, {:,} items, {:,} events".format(*size),
            allowed=f"{name} has {found.users:,}, {found.items:,}, {found.events:,}",
            remedy="Take the set's own file, or use this one by its path.",
        )
