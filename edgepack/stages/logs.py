"""Log -> split: read, clean, split; and the histories that later stages calibrate and compare on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgepack.config import DataConfig, ModelConfig
from edgepack.errors import ConfigError, DataError
from edgepack.profiles import convert_table
from edgepack.results import DataFacts
from edgepack.rows import QueryHashing, Rows
from edgepack.stages import Place, named_in_config, versions
from edgepack.store import Kept, digest_of, sha256_of, source_fingerprint, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepack.data.clean import CleaningReport, Interactions
    from edgepack.data.types import EvaluationSet, Split

CALIBRATION_ROWS = 256
CALIBRATION_SEED = 23
PARITY_ROWS = 128


class LogSource(NamedTuple):
    """Where the log is, and how it is read, cleaned and split; `path` is None for the embedded shop."""

    name: str
    path: Path | None
    identity: str
    format: str | None
    columns: dict[str, Any]
    cleaning: dict[str, Any]
    split: str
    licence: str = ""
    collected: tuple[Path, ...] = ()


def split_log(place: Place) -> Kept:
    """Read, clean and split the log: `split.npz`, `vocabulary.json`, `facts.json`."""
    source = source_of(place.config.data, place.folder)
    inputs = {
        "source": [source.identity, source.format, source.columns, source.cleaning, source.split],
        "code": source_fingerprint("data"),
        "versions": versions("numpy", "pyarrow"),
    }
    search = hashing(place.config.model)
    if search is not None:
        _must_lead_to_one_item(source.split)
        inputs["query"] = msgspec.to_builtins(search)

    def make(folder: Path) -> None:
        place.tell(f"data: {source.name}", 0, 0)
        _write_split(place.config.data, source, search, folder)

    return place.store.produce("data", inputs, make)


def _must_lead_to_one_item(split: str) -> None:
    if split != "leave-one-out":
        raise ConfigError(
            "model.query_length",
            f'is set, and the split is "{split}"',
            allowed='a search leads to one item, so a search model needs "leave-one-out"',
            remedy="Set data.split, or leave model.query_length out.",
        )


def _searched(
    interactions: "Interactions", cut: "Callable[[Interactions], Split]", search: QueryHashing | None
) -> "Split":
    """Split the log; each event keeps its search, hashed, when the model takes one."""
    from edgepack.data.query import indexed

    if search is None:
        return cut(interactions)
    if interactions.queries is None:
        raise DataError(
            "model.query_length",
            "the log has no searches",
            allowed="a search model learns from what was typed before each event",
            remedy="Name the column: data.columns.query; or leave model.query_length out.",
        )
    index, ids = indexed(interactions.queries, search)
    sequences = interactions.sequences._replace(queries=index)
    return cut(interactions._replace(sequences=sequences))._replace(queries=ids)


def facts(kept: Kept) -> DataFacts:
    """Return what the data stage learnt."""
    return msgspec.json.decode((kept.path / "facts.json").read_bytes(), type=DataFacts)


def source_of(config: DataConfig, folder: Path) -> LogSource:
    """Return the configured source. Raises DataError when there is no such file."""
    source = _log(config, folder)
    if config.collected is None:
        return source
    exports = _exports(config.collected, folder)
    return source._replace(
        name=f"{source.name} and {len(exports)} collected {'history' if len(exports) == 1 else 'histories'}",
        identity=digest_of([source.identity, *(sha256_of(path) for path in exports)]),
        collected=exports,
    )


def _exports(collected: str, folder: Path) -> tuple[Path, ...]:
    place = named_in_config(folder, "data.collected", collected, is_folder=True)
    return tuple(sorted(place.glob("*.csv")))


def _log(config: DataConfig, folder: Path) -> LogSource:
    if config.shop is not None:
        name = f"synthetic shop, {config.shop.items:,} items, seed {config.shop.seed}"
        identity = digest_of(msgspec.to_builtins(config.shop))
        return LogSource(name, None, identity, None, {}, config.cleaning, config.split or "leave-one-out")
    if config.set is not None:
        from edgepack.data import public

        known, taken = public.known(config.set), public.taken(config.set)
        return LogSource(
            f"{config.set} ({taken.path.name})",
            taken.path,
            sha256_of(taken.path),
            taken.format,
            msgspec.to_builtins(taken.columns) | config.columns,
            msgspec.to_builtins(known.cleaning) | config.cleaning,
            config.split or known.split,
            known.licence,
        )
    path = named_in_config(folder, "data.path", str(config.path))
    split = config.split or "leave-one-out"
    return LogSource(path.name, path, sha256_of(path), config.format, config.columns, config.cleaning, split)


def _cleaned(
    config: DataConfig, source: LogSource, search: QueryHashing | None
) -> "tuple[Interactions, CleaningReport]":
    from edgepack.data import clean, collected, read, shop, shop_search

    rules = convert_table(source.cleaning, clean.CleaningRules, "edgepack.toml: data.cleaning")
    if source.path is None:
        assert config.shop is not None  # noqa: S101  `source_of` has no path for the shop alone
        events = shop.make_shop(config.shop.items, config.shop.users, config.shop.seed)
        if search is not None:
            events = events._replace(query=shop_search.queries(events.item, config.shop.seed))
    else:
        columns = convert_table(source.columns, read.Columns, "edgepack.toml: data.columns")
        events = read.read(source.path, columns, source.format)
    joined = collected.join(events, source.collected)
    interactions, report = clean.clean(joined.events, rules)
    return interactions, msgspec.structs.replace(report, dropped=(*joined.dropped, *report.dropped))


def test_users(place: Place) -> tuple[str, ...]:
    """Return the ids of the test users, in the order of the split."""
    from edgepack.data.split import SPLITS

    source = source_of(place.config.data, place.folder)
    interactions, _ = _cleaned(place.config.data, source, None)
    tested = SPLITS[source.split](interactions).tested
    return tuple(interactions.users[user] for user in (() if tested is None else tested))


def _write_split(config: DataConfig, source: LogSource, search: QueryHashing | None, folder: Path) -> None:
    from edgepack.data import split

    interactions, report = _cleaned(config, source, search)
    made = _searched(interactions, split.SPLITS[source.split], search)
    split.save_split(made, interactions.vocabulary, folder)
    told = DataFacts(
        source=source.name,
        sha256=source.identity,
        users=report.users,
        items=report.items,
        events=report.events,
        dropped=report.counts(),
        split=source.split,
        test_users=made.test.history.users,
        cold_test_targets=split.cold_targets(made),
        licence=source.licence,
    )
    write_atomic(folder / "facts.json", msgspec.json.encode(told))


def calibration(place: Place, split: Kept) -> Rows:
    """Return the representative dataset: int32 [256, L] an input, of training users."""
    return _drawn(place, split, CALIBRATION_ROWS, CALIBRATION_SEED)


def parity_rows(place: Place, split: Kept) -> Rows:
    """Return what every artifact is compared on, int32 [PARITY_ROWS, L] an input; the first row is empty.

    With a search as input, the second row has no history and the third no search.
    """
    rows = _drawn(place, split, PARITY_ROWS, CALIBRATION_SEED + 1)
    rows["history"][: 2 if "query" in rows else 1] = 0
    if "query" in rows:
        rows["query"][[0, 2]] = 0
    return rows


def _drawn(place: Place, split: Kept, count: int, seed: int) -> Rows:
    from edgepack.data.split import calibration_rows, load_split

    whole, _ = load_split(split.path)
    return calibration_rows(whole, place.config.model.history_length, count, seed)


def tested(place: Place, split: Kept, length: int | None = None) -> "tuple[EvaluationSet, Rows]":
    """Return the test users and what a model that reads `length` items is fed; None: the one that ships."""
    from edgepack.data.split import load_split
    from edgepack.data.types import rows

    whole, _ = load_split(split.path)
    return whole.test, rows(whole, whole.test, length or place.config.model.history_length)


def hashing(config: ModelConfig) -> QueryHashing | None:
    """Return how the configured model's search text is hashed, None for a model that takes none."""
    if not config.query_length:
        return None
    return QueryHashing(length=config.query_length, buckets=config.query_buckets)


def popularity(split: Kept) -> "NDArray[np.float64]":
    """Return how often each item was taken in training, float64 [V + 1]."""
    import numpy as np

    from edgepack.data.split import load_split

    whole, _ = load_split(split.path)
    return np.bincount(whole.train.items, minlength=whole.item_count + 1).astype(np.float64)


def ngram_popularity(split: Kept) -> "NDArray[np.float64] | None":
    """Return how often each n-gram was searched for in training, float64 [buckets + 1]; None without any."""
    import numpy as np

    from edgepack.data.split import load_split

    whole, _ = load_split(split.path)
    if whole.queries is None or whole.train.queries is None:
        return None
    return np.bincount(whole.queries[whole.train.queries].ravel()).astype(np.float64)


def validated(whole: "Split", most: int) -> "EvaluationSet":
    """Return the first `most` validation users of a log.

    Raises DataError when it has none: on test users nothing may be chosen.
    """
    from edgepack.data.types import EvaluationSet
    from edgepack.evaluate.ranking import chunk

    count = whole.valid.history.users
    if not count:
        raise DataError(
            "the log",
            "no user has events enough to be held out for validation",
            allowed="leave-one-out takes three events of a user, next-basket three baskets with new items",
            remedy="Take a longer log, and until then no `control-…` recipe and no attribute_loss.",
        )
    return EvaluationSet(*(chunk(side, 0, min(most, count)) for side in whole.valid))
