"""Product list or log -> catalogue: what the apps show of the items of the vocabulary."""

import json
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgepack.config import CatalogueConfig, ShopConfig
from edgepack.errors import ConfigError
from edgepack.profiles import convert_table
from edgepack.stages import Place, named_in_config, versions
from edgepack.stages.logs import source_of
from edgepack.store import Kept, sha256_of, source_fingerprint, write_atomic


class _Table(NamedTuple):
    """Where titles stand; `item` is the column with the ids, `sha256` the file's."""

    path: Path
    sha256: str
    format: str | None
    wanted: CatalogueConfig
    item: str


def catalogue(place: Place, split: Kept) -> bytes | None:
    """Return the apps' `catalogue.json`; None when neither the configuration nor the data has titles.

    Raises ConfigError for one that is asked for where there is none, DataError for one that cannot be read.
    """
    source = _shop(place) or _table(place)
    if source is None:
        return None
    inputs = {
        "source": _identity(source),
        "split": split.digest,
        "code": source_fingerprint("data"),
        "versions": versions("numpy", "pyarrow"),
    }

    def make(folder: Path) -> None:
        vocabulary = json.loads((split.path / "vocabulary.json").read_bytes())
        write_atomic(folder / "catalogue.json", _made(source, vocabulary))

    return (place.store.produce("catalogue", inputs, make).path / "catalogue.json").read_bytes()


def _identity(source: _Table | ShopConfig) -> list[object]:
    if isinstance(source, ShopConfig):
        return ["shop", msgspec.to_builtins(source)]
    return [source.sha256, source.format, source.item, msgspec.to_builtins(source.wanted)]


def _made(source: _Table | ShopConfig, vocabulary: list[str]) -> bytes:
    from edgepack.data import catalogue, shop
    from edgepack.data.formats import read_table

    if isinstance(source, ShopConfig):
        made = catalogue.of_shop(shop.make_shop(source.items, source.users, source.seed), vocabulary)
    else:
        wanted = source.wanted
        columns = [name for name in (source.item, wanted.title, wanted.price, wanted.category) if name]
        table = read_table(source.path, columns, source.format)
        made = catalogue.of_table(table, wanted, source.item, vocabulary)
    return msgspec.json.encode(made) + b"\n"


def _shop(place: Place) -> ShopConfig | None:
    data = place.config.data
    if data.shop is not None and data.catalogue is not None:
        raise ConfigError(
            "data.catalogue",
            "is set beside data.shop",
            allowed="the embedded shop has a catalogue of its own",
            remedy="Leave [data.catalogue] out.",
        )
    return data.shop


def _table(place: Place) -> _Table | None:
    from edgepack.data.read import Columns

    data = place.config.data
    wanted = data.catalogue or _of_set(place)
    if wanted is None:
        return None
    if wanted.path is not None:
        path = named_in_config(place.folder, "data.catalogue.path", wanted.path)
        return _Table(path, sha256_of(path), wanted.format, wanted, wanted.item or "item")
    log = source_of(data, place.folder)
    columns = convert_table(log.columns, Columns, "edgepack.toml: data.columns")
    return _Table(Path(str(log.path)), log.identity, log.format, wanted, wanted.item or columns.item)


def _of_set(place: Place) -> CatalogueConfig | None:
    from edgepack.data import public

    return public.taken(place.config.data.set).catalogue if place.config.data.set else None
