"""`make proof-support`: which family, technique and format work together, on every kind of target.

A cell is a small model of one family, trained, compressed by one technique, converted to one TFLite and one
ONNX format; each file has to pass the parity gate in the host's runtime and on a target: an emulated core,
or onnxruntime-web in Chromium. The cells cover every pair of what can be combined. What is written down is
"works" or the sentence that edgepack refuses with; anything else ends the proof. Resumable: finished cells
stay in tests/proofs/results/support.json, and what is new in edgepack (a family, a recipe, a format, a core)
only adds the cells that it needs.
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgepack.compress.recipes import RECIPES, Recipe
from edgepack.config import Config, DataConfig, ModelConfig, ShopConfig
from edgepack.errors import EdgepackError
from edgepack.profiles import Profile, load_profiles
from edgepack.runtimes.engines import Engine, device_engine, host_engine, scores
from edgepack.stages import Place, artifacts, compression, configured, figures, logs, models
from edgepack.store import Kept, Store

RECORD = Path(__file__).parent / "results" / "support.json"
MOST_CELLS = 60
"""That are converted and run; one that is refused costs nothing."""
WORKS = "works"
ITEMS, LENGTH = 500, 8
TECHNIQUES = (
    "ptq",
    "qat",
    "prune50-qat",
    "thin50-qat",
    "heads50-qat",
    "cluster16-qat",
    "table-4bit-qat",
    "table-codes-qat",
    "table-hash-qat",
)
OWN = {"own Keras": "own_model.py", "own ONNX": "own_model.onnx"}
SEARCHES = ("twotower",)
# A model that came as ONNX has no training graph; what needs one is refused before any format is asked for.
UNTRAINABLE = "own ONNX"
_WIDTHS = ("width", "units", "ffn_width", "mlp_in", "mlp_out")
_OWN_SOURCE = """
from edgepack.keras2 import keras

def build(item_count, length):
    ids = keras.Input((length,), dtype="int32", name="items")
    x = keras.layers.Embedding(item_count + 1, 16, name="rows")(ids)
    x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden")(x)
    return keras.Model(ids, keras.layers.Dense(item_count + 1, name="scores")(x), name="own")
"""


class Cell(NamedTuple):
    """One combination; `technique` is a recipe. The last three are "" where the technique is refused."""

    family: str
    technique: str
    tflite: str
    onnx: str
    target: str


_FILLED_IN = ("family", "technique", "onnx", "target", "tflite")
"""The order in which a cell's fields are chosen: of those tried, this one needs the fewest cells."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a cell: WORKS or a sentence for each part; "" for one that was not reached."""

    cell: Cell
    compressed: str
    tflite: str = ""
    onnx: str = ""
    target: str = ""


def techniques() -> dict[str, tuple[str, ...]]:
    """Return a recipe for every kind of compression -> all recipes whose steps are among its own.

    What a recipe takes away is followed by the harder quantization, training; a teacher changes a loss
    and nothing that is converted.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in TECHNIQUES:
        alike = [other for other, recipe in RECIPES.items() if _removes(recipe) == _removes(RECIPES[name])]
        trained = RECIPES[name].quantization is not None
        found[name] = tuple(n for n in alike if any(_removes(RECIPES[n])) or _is_trained(n) == trained)
    return found


def _removes(recipe: Recipe) -> tuple[bool, ...]:
    tables, thinning = recipe.tables, recipe.thinning
    rows = tables is not None and bool(tables.rank_share or tables.codes), _shares_rows(recipe)
    thinned = thinning is not None and thinning.share > 0, _cuts_heads(recipe)
    steps = (recipe.pruning, recipe.clustering, tables)
    return (*thinned, *(step is not None for step in steps), *rows)


def _shares_rows(recipe: Recipe) -> bool:
    return recipe.tables is not None and recipe.tables.hashed is not None


def _cuts_heads(recipe: Recipe) -> bool:
    return recipe.thinning is not None and recipe.thinning.head_share > 0


def _is_trained(name: str) -> bool:
    return RECIPES[name].quantization is not None


profiles = cache(load_profiles)


@cache
def axes() -> Cell:
    """Return what there is to combine, a tuple of names in each field of a Cell."""
    formats = dict.fromkeys(format for profile in profiles().values() for format in profile.formats)
    return Cell(  # type: ignore[call-arg]
        (*configured.families(), *OWN),  # type: ignore[arg-type]
        tuple(techniques()),  # type: ignore[arg-type]
        tuple(f for f in formats if f.startswith("tflite")),  # type: ignore[arg-type]
        tuple(f for f in formats if not f.startswith("tflite")),  # type: ignore[arg-type]
        tuple(cores()),  # type: ignore[arg-type]
    )


def cores() -> dict[str, Profile]:
    """Return one target for every emulated core and runtime, by name."""
    emulated = [p for p in profiles().values() if p.emulation is not None]
    found = {(p.runtime.name, p.emulation.core): p for p in reversed(emulated)}
    return {profile.name: profile for profile in found.values()}


def is_refused(cell: Cell) -> bool:
    """True when the family cannot be trained on and the technique has to."""
    return cell.family == UNTRAINABLE and RECIPES[cell.technique].trains


def allowed(cell: Cell) -> bool:
    """True unless a target of the code does not take the format, or the technique is refused."""
    profile = profiles().get(cell.target)
    runs = profile is None or not cell.tflite or cell.tflite in profile.formats
    return runs and not (cell.family and cell.technique and is_refused(cell))


def pairs(cell: Cell) -> set[tuple[int, str, int, str]]:
    """Return the pairs of named parts that a cell holds, each with its fields' numbers."""
    named = [(i, part) for i, part in enumerate(cell) if part]
    return {(*one, *other) for one, other in combinations(named, 2)}


def missing(done: Iterable[Cell]) -> list[tuple[int, str, int, str]]:
    """Return the pairs, in order, that can be combined and stand in no cell of `done`."""
    whole, found = axes(), set().union(*(pairs(cell) for cell in done))
    every = (
        (i, one, j, other) for i, j in combinations(range(5), 2) for one in whole[i] for other in whole[j]
    )
    return [pair for pair in every if pair not in found and _may_be(_of(pair))]


def _may_be(part: Cell) -> bool:
    # The pair (family, technique) that is refused is a cell of its own.
    return allowed(part) or (part.family != "" and part.technique != "" and is_refused(part))


def _of(pair: tuple[int, str, int, str]) -> Cell:
    parts = ["", "", "", "", ""]
    parts[pair[0]], parts[pair[2]] = pair[1], pair[3]
    return Cell(*parts)


def covering(done: list[Cell]) -> Iterator[Cell]:
    """Yield cells until, with those of `done`, every pair that can be combined stands in one.

    Greedy: a cell starts from the first pair that is missing and takes, field by field, what covers most
    of the others. A cell of `done` without formats is a family that refused a technique (`tried`).
    """
    cells = list(done)
    refused = {cell[:2] for cell in done if not cell.tflite}
    while left := missing(cells):
        cell = _of(left[0])
        if not (cell.technique and cell.family and is_refused(cell)):
            cell = _filled(cell, set(left), refused)
        cells.append(cell)
        yield cell


def tried(one: Outcome) -> Cell:
    """Return the part of a cell that was tried: a family that refuses a technique has no formats with it."""
    return one.cell if one.compressed == WORKS else one.cell._replace(tflite="", onnx="", target="")


def _filled(cell: Cell, left: set[tuple[int, str, int, str]], refused: set[tuple[str, ...]]) -> Cell:
    whole = axes()
    for field in _FILLED_IN:
        if not getattr(cell, field):
            tries = [cell._replace(**{field: name}) for name in getattr(whole, field)]
            tries = [one for one in tries if one[:2] not in refused]
            cell = max(filter(allowed, tries), key=lambda one: len(pairs(one) & left))
    return cell


def outcome(cell: Cell, folder: Path) -> Outcome:
    """Carry a cell out in `folder`, which keeps what cells share. A traceback is a bug of edgepack's."""
    place = _place(cell, folder)
    split = logs.split_log(place)
    model = configured.model(place, logs.facts(split).items)
    if RECIPES[cell.technique].trains and model.why_not_trained_further:
        return Outcome(cell=cell, compressed=f"it cannot be trained further: {model.why_not_trained_further}")
    try:
        trained = models.Trained(model, models.train(place, split, model, place.config.seed))
        compressed = compression.compress(place, split, trained, cell.technique)
    except EdgepackError as error:
        return Outcome(cell=cell, compressed=str(error))
    target, web = profiles()[cell.target], next(p for p in profiles().values() if p.platform == "web-wasm")
    work = (place, split, model, compressed, cell.technique)
    tflite, there = _converted(*work, cell.tflite, [host_engine(target)], device_engine(target))
    onnx, _ = _converted(*work, cell.onnx, [Engine("onnxruntime"), device_engine(web)])
    return Outcome(cell=cell, compressed=WORKS, tflite=tflite, onnx=onnx, target=there)


def _converted(
    place: Place,
    split: Kept,
    model: configured.Model,
    compressed: Kept,
    recipe: str,
    format: str,
    engines: list[Engine],
    device: Engine | None = None,
) -> tuple[str, str]:
    """Return what came of a format in `engines`, and on `device`."""
    made = artifacts.artifact(place, split, model, compressed, recipe, format)
    failure = figures.artifact_of(made)
    if isinstance(failure, str):
        return failure, ""
    for engine in engines:
        if reason := _disagrees(place, split, compressed, made, engine):
            return f"{engine.name}: {reason}", ""
    there = _disagrees(place, split, compressed, made, device) if device else ""
    return WORKS, f"{device.name}: {there}" if device and there else WORKS


def _disagrees(place: Place, split: Kept, compressed: Kept, made: Kept, engine: Engine) -> str:
    """Return why an artifact fails its parity gate in an engine, "" when it passes."""
    import numpy as np

    from edgepack.convert import parity

    facts, path = figures.file_of(made)
    kind = "int8" if "int8" in facts.format else "plain"
    reference = np.load(compressed.path / f"reference_{kind}.npy")
    try:
        found = scores(engine, path, logs.parity_rows(place, split))
    except EdgepackError as error:
        return str(error)
    return str(parity.check(reference, found, facts.format).reason)


def _place(cell: Cell, folder: Path) -> Place:
    family = cell.family
    shop = DataConfig(shop=ShopConfig(items=ITEMS, users=200, seed=7))
    named = {"file": OWN[family]} if family in OWN else {"family": family, "hyper": _small(cell)}
    if family in SEARCHES:
        named |= {"query_length": 6, "query_buckets": 64}
    config = Config(
        name="support",
        data=shop,
        model=ModelConfig(history_length=LENGTH, **named),
        training={"epochs": 3, "learning_rate": 6e-3, "validation_users": 50},
    )
    place = Place(config, folder, Store(folder / "store"), lambda what, done, total: None)
    if family in OWN:
        _write_own(place)
    return place


def _small(cell: Cell) -> dict[str, Any]:
    """Return hyper-parameters of a small model: every width is 16, and heads are two where one is to go."""
    hyper = import_module(f"edgepack.models.{cell.family}").HYPER
    heads = {"heads": 2} if "heads" in hyper and _cuts_heads(RECIPES[cell.technique]) else {}
    return {name: 16 for name in hyper if name in _WIDTHS} | heads


def _write_own(place: Place) -> None:
    """Put a user's own model beside the store: a Python file, and what another tool made of it as ONNX."""
    source, exported = (place.folder / name for name in OWN.values())
    if exported.exists():
        return
    source.write_text(_OWN_SOURCE)
    items = logs.facts(logs.split_log(place)).items
    from edgepack.convert import intake, onnx
    from edgepack.keras2 import deterministic

    deterministic(5)
    exported.write_bytes(
        onnx.export(intake.graphs(source, item_count=items, length=LENGTH).serving, length=LENGTH)
    )


def recorded() -> list[Outcome]:
    """Return the outcomes of the last proof, those left out whose parts are no longer in edgepack."""
    if not RECORD.exists():
        return []
    whole = axes()
    found = msgspec.json.decode(RECORD.read_bytes(), type=list[Outcome])
    return [
        one
        for one in found
        if all(not part or part in axis for part, axis in zip(one.cell, whole, strict=True))
    ]


def rendered(done: list[Outcome]) -> str:
    """Return the matrix as Markdown: what a family gives with each technique, format and core."""
    whole = axes()
    reasons: dict[str, int] = {}
    rows = [("", *whole.family), ("---", *("---" for _ in whole.family))]
    for field, result in (
        ("technique", "compressed"),
        ("tflite", "tflite"),
        ("onnx", "onnx"),
        ("target", "target"),
    ):
        for part in getattr(whole, field):
            told = (_told_of(done, family, field, part, result, reasons) for family in whole.family)
            rows.append((_label(field, part), *told))
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return table + "".join(f"\n{number}. {reason}" for reason, number in reasons.items()) + "\n"


def _label(field: str, part: str) -> str:
    names = _shown(part) if field == "technique" else [part]
    return ", ".join(f"`{name}`" for name in names)


def _shown(technique: str) -> list[str]:
    return [name for name in techniques()[technique] if not name.startswith(("guided-", "distil"))]


def _told_of(
    done: list[Outcome], family: str, field: str, part: str, result: str, reasons: dict[str, int]
) -> str:
    """Return "yes", "no" or both, with the numbers of the reasons for a "no"; "–" where nothing was tried."""
    mine = [one for one in done if one.cell.family == family and getattr(one.cell, field) == part]
    said = dict.fromkeys(getattr(one, result) for one in mine)
    if field == "technique" and family == UNTRAINABLE and WORKS in said:
        said |= dict.fromkeys(_without_layers(part))
    numbers = [str(reasons.setdefault(one, len(reasons) + 1)) for one in said if one not in (WORKS, "")]
    told = "yes" if WORKS in said else "no" if numbers else "–"
    return f"{told} ({', '.join(numbers)})" if numbers else told


def _without_layers(technique: str) -> list[str]:
    """Return what is told of those recipes that look into layers: an ONNX model has none."""
    names = [f"`{name}`" for name in _shown(technique) if RECIPES[name].needs_layers]
    return [f"not {', '.join(names)}: it came as ONNX, which holds no Keras layers"] if names else []


def main() -> None:
    """Carry out the cells that are not recorded yet."""
    done = recorded()
    wanted = list(covering([tried(one) for one in done]))
    with tempfile.TemporaryDirectory(prefix="edgepack-support-") as folder:
        for number, cell in enumerate(wanted, start=1):
            done.append(outcome(cell, Path(folder)))
            RECORD.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=1) + b"\n")
            sys.stderr.write(f"{number}/{len(wanted)} {' '.join(cell)}: {_told(done[-1])}\n")


def _told(found: Outcome) -> str:
    said = (found.compressed, found.tflite, found.onnx, found.target)
    return "; ".join(dict.fromkeys(part for part in said if part))


if __name__ == "__main__":
    main()
