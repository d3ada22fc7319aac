"""The stages that make artifacts, each a function of hashed inputs whose result is kept in the store.

A stage names in its inputs everything that its result depends on: earlier results by their digest,
settings, the sources of the rooms it runs, and the versions of the libraries that shape it. Heavy
imports stand inside the makers, so that a build with nothing to do loads none of them.
"""

import zlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgepack.config import Config, DataConfig
from edgepack.errors import ConvertError, DataError
from edgepack.profiles import convert_table
from edgepack.results import Artifact, DataFacts
from edgepack.store import Kept, Store, digest_of, sha256_of, source_fingerprint, write_atomic
from edgepack.tools import Tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepack.models.graphs import Graphs

_CALIBRATION_ROWS = 256
_CALIBRATION_SEED = 23
PARITY_ROWS = 128


class Place(NamedTuple):
    """Where a build stands: configuration, the folder that its paths are relative to, store, progress."""

    config: Config
    folder: Path
    store: Store
    tell: Tell


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of each package, "absent" for one that is not there."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


# Data: log -> split


class _Source(NamedTuple):
    name: str
    path: Path | None
    identity: str
    format: str | None
    columns: dict[str, Any]
    cleaning: dict[str, Any]
    split: str
    licence: str = ""


def data(place: Place) -> Kept:
    """Read, clean and split the log: `split.npz`, `vocabulary.json`, `facts.json`."""
    source = _source(place.config.data, place.folder)
    inputs = {
        "source": [source.identity, source.format, source.columns, source.cleaning, source.split],
        "code": source_fingerprint("data"),
        "versions": versions("numpy", "pyarrow"),
    }

    def make(folder: Path) -> None:
        place.tell(f"data: {source.name}", 0, 0)
        _write_split(place.config.data, source, folder)

    return place.store.produce("data", inputs, make)


def facts(kept: Kept) -> DataFacts:
    """Return what the data stage learnt."""
    return msgspec.json.decode((kept.path / "facts.json").read_bytes(), type=DataFacts)


def _source(config: DataConfig, folder: Path) -> _Source:
    if config.shop is not None:
        name = f"synthetic shop, {config.shop.items:,} items, seed {config.shop.seed}"
        identity = digest_of(msgspec.to_builtins(config.shop))
        return _Source(name, None, identity, None, {}, config.cleaning, config.split or "leave-one-out")
    if config.set is not None:
        from edgepack.data import public

        known, taken = public.known(config.set), public.taken(config.set)
        return _Source(
            f"{config.set} ({taken.path.name})",
            taken.path,
            sha256_of(taken.path),
            taken.format,
            msgspec.to_builtins(taken.columns) | config.columns,
            msgspec.to_builtins(known.cleaning) | config.cleaning,
            config.split or known.split,
            known.licence,
        )
    path = (folder / str(config.path)).resolve()
    if not path.is_file():
        raise DataError(
            f"data.path {config.path}",
            "there is no such file",
            allowed=f"paths are relative to {folder.resolve()}",
            remedy="Correct data.path in edgepack.toml.",
        )
    split = config.split or "leave-one-out"
    return _Source(path.name, path, sha256_of(path), config.format, config.columns, config.cleaning, split)


def _write_split(config: DataConfig, source: _Source, folder: Path) -> None:
    from edgepack.data import clean, read, shop, split

    rules = convert_table(source.cleaning, clean.CleaningRules, "edgepack.toml: data.cleaning")
    if source.path is None:
        assert config.shop is not None  # noqa: S101  `_source` has no path for the shop alone
        events = shop.make_shop(config.shop.items, config.shop.users, config.shop.seed)
    else:
        columns = convert_table(source.columns, read.Columns, "edgepack.toml: data.columns")
        events = read.read(source.path, columns, source.format)
    interactions, report = clean.clean(events, rules)
    made = split.SPLITS[source.split](interactions)
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


# Model: split -> float weights -> weights of each recipe


class Model(NamedTuple):
    """What is packed. `identity` is JSON that tells it from any other; `build` makes its untrained graphs.

    `why_not_trained_further` says why a user's model can only be quantized after training ("" if not so).
    """

    name: str
    identity: dict[str, Any]
    build: "Callable[[], Graphs]"
    comes_trained: bool = False
    why_not_trained_further: str = ""


def model(place: Place, item_count: int) -> Model:
    """Return the configured model for V = `item_count`. Raises ConfigError or ConvertError if it is wrong."""
    config, length = place.config.model, place.config.model.history_length
    if config.file is not None:
        return _own_model((place.folder / config.file).resolve(), item_count, length)
    family = str(config.family)
    _known_family(family)
    identity = {
        "family": family,
        "hyper": config.hyper,
        "length": length,
        "items": item_count,
        "code": source_fingerprint("models"),
    }

    def build() -> "Graphs":
        from importlib import import_module

        from edgepack.keras2 import deterministic

        deterministic(place.config.seed)
        module = import_module(f"edgepack.models.{family}")
        graphs: Graphs = module.build(item_count, length, **config.hyper)
        return graphs

    return Model(family, identity, build)


def _known_family(family: str) -> None:
    from edgepack.errors import ConfigError, did_you_mean

    beside = Path(__file__).parent / "models"
    folder = beside if beside.is_dir() else Path(__file__).parent.parent / "models"
    known = sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "graphs"))
    if family not in known:
        raise ConfigError(
            f"model.family '{family}'",
            "no such family",
            allowed=f"known are {', '.join(known)}",
            remedy=f"{did_you_mean(family, known)}Name one, or give your own as model.file.",
        )


def _own_model(path: Path, item_count: int, length: int) -> Model:
    from edgepack.convert import intake

    taken = intake.describe(path)
    identity = {"sha256": taken.sha256, "length": length, "items": item_count}

    def build() -> "Graphs":
        return intake.graphs(path, item_count=item_count, length=length)

    return Model(path.name, identity, build, taken.comes_trained, taken.why_not_trained_further)


def train(place: Place, split: Kept, model: Model, seed: int) -> Kept:
    """Train the float model: `weights.npz` (of the training graph) and `curve.json`."""
    inputs = {
        "split": split.digest,
        "model": model.identity,
        "training": place.config.training,
        "seed": seed,
        "code": source_fingerprint("train", "models", "keras2.py"),
        "versions": versions("tensorflow", "tf_keras", "numpy"),
    }

    def make(folder: Path) -> None:
        from edgepack.compress.weights import save_weights

        graphs = model.build()
        records: list[dict[str, float]] = []
        if not model.comes_trained:
            records = _fitted(place, split, model, graphs, {**place.config.training, "seed": seed}, folder)
        save_weights(graphs.training, folder / "weights.npz")
        write_atomic(folder / "curve.json", msgspec.json.encode(records))

    return place.store.produce("train", inputs, make)


def _fitted(
    place: Place, split: Kept, model: Model, graphs: "Graphs", overrides: dict[str, Any], folder: Path
) -> list[dict[str, float]]:
    from edgepack.data.split import load_split
    from edgepack.train import checkpoint, fit
    from edgepack.train.settings import TrainingSettings

    settings = convert_table(
        {**_family_training(model), **overrides}, TrainingSettings, "edgepack.toml: training"
    )
    whole, _ = load_split(split.path)
    title = f"training {model.name} (seed {settings.seed})"
    told = _told(place.tell, title)
    if graphs.training is graphs.serving:
        history = fit.fit_scores(graphs.training, whole, settings, work=folder, tell=told)
    else:
        history = fit.fit(graphs, whole, settings, work=folder, tell=told)
    checkpoint.forget(folder)
    timeless = ("cpu_s", "wall_s")
    # Times differ from run to run and would give equal trainings unequal digests.
    return [{k: v for k, v in record.items() if k not in timeless} for record in history.records]


def _family_training(model: Model) -> dict[str, Any]:
    from importlib import import_module

    if "family" not in model.identity:
        return {}
    training: dict[str, Any] = import_module(f"edgepack.models.{model.name}").TRAINING
    return training


def _told(tell: Tell, title: str) -> Callable[[int, int, str], None]:
    def say(done: int, total: int, figures: str) -> None:
        tell(f"{title}: {figures}" if figures else title, done, total)

    return say


def compress(place: Place, split: Kept, model: Model, trained: Kept, recipe_name: str) -> Kept:
    """Carry out a recipe: its folder is what `compress.steps.restore` reads, with reference scores beside.

    `reference_plain.npy` and `reference_int8.npy`, float32 [PARITY_ROWS, V + 1], are what the Keras model
    gives for the parity histories, without and with its rounding to 8 bits.
    """
    from edgepack.compress.recipes import RECIPES

    inputs = {
        "split": split.digest,
        "model": model.identity,
        "weights": trained.digest,
        "recipe": msgspec.to_builtins(RECIPES[recipe_name]),
        "training": place.config.compress.training,
        "code": source_fingerprint("compress", "train", "models", "keras2.py"),
        "versions": versions("tensorflow", "tf_keras", "tensorflow-model-optimization", "numpy"),
    }

    def make(folder: Path) -> None:
        _carried_out(place, split, model, trained, recipe_name, folder)

    return place.store.produce("compress", inputs, make)


def _carried_out(
    place: Place, split: Kept, model: Model, trained: Kept, recipe_name: str, folder: Path
) -> None:
    import numpy as np

    from edgepack.compress import steps
    from edgepack.compress.recipes import RECIPES
    from edgepack.train import fit

    recipe = RECIPES[recipe_name]
    if recipe.trains and model.why_not_trained_further:
        raise ConvertError(
            f"recipe {recipe.name}",
            f"{model.name} cannot be trained further ({model.why_not_trained_further})",
            allowed="it can be quantized after training",
            remedy="Use the recipe ptq.",
        )
    finetune, steps_per_epoch = _finetune(place, split, model, recipe_name)
    steps.compress(
        model.build,
        trained.path / "weights.npz",
        recipe,
        calibration=calibration(place, split),
        steps_per_epoch=steps_per_epoch,
        finetune=finetune,
        work=folder,
    )
    histories = parity_histories(place, split)
    for quantized, name in ((False, "reference_plain.npy"), (True, "reference_int8.npy")):
        serving = steps.restore(model.build, folder, quantized=quantized)
        np.save(folder / name, np.concatenate(list(fit.predict(serving, histories))))


def _finetune(place: Place, split: Kept, model: Model, recipe_name: str) -> tuple[Any, int]:
    from edgepack.data.split import load_split
    from edgepack.train import checkpoint, fit
    from edgepack.train.settings import TrainingSettings

    whole, _ = load_split(split.path)
    base = {**_family_training(model), **place.config.training, **place.config.compress.training}

    def settings(**own: Any) -> TrainingSettings:
        table = {**base, "seed": place.config.seed, **own}
        return convert_table(table, TrainingSettings, "edgepack.toml: compress.training")

    def finetune(
        graphs: "Graphs", *, epochs: int, learning_rate: float, keep_last: bool, table: Any, work: Path
    ) -> object:
        chosen = settings(
            epochs=epochs, learning_rate=learning_rate, keep="last" if keep_last else "best", patience=0
        )
        told = _told(place.tell, f"{recipe_name}: {work.name}")
        if graphs.training is graphs.serving:
            history = fit.fit_scores(graphs.training, whole, chosen, work=work, tell=told)
        else:
            history = fit.fit(graphs, whole, chosen, work=work, tell=told, table=table)
        checkpoint.forget(work)
        return history

    return finetune, fit.steps_per_epoch(model.build(), whole, settings())


def calibration(place: Place, split: Kept) -> "NDArray[np.int32]":
    """Return the representative dataset: int32 [256, L] histories of training users."""
    from edgepack.data.split import calibration_histories, load_split

    whole, _ = load_split(split.path)
    return calibration_histories(
        whole, place.config.model.history_length, _CALIBRATION_ROWS, _CALIBRATION_SEED
    )


def parity_histories(place: Place, split: Kept) -> "NDArray[np.int32]":
    """Return what every artifact is compared on: int32 [PARITY_ROWS, L], the first row an empty history."""
    from edgepack.data.split import calibration_histories, load_split

    whole, _ = load_split(split.path)
    rows = calibration_histories(whole, place.config.model.history_length, PARITY_ROWS, _CALIBRATION_SEED + 1)
    rows[0] = 0
    return rows


# Artifacts: weights -> files


def artifact(place: Place, split: Kept, model: Model, compressed: Kept, recipe: str, format: str) -> Kept:
    """Convert to one format: the model file, and `artifact.json` or, if it cannot be, `failed.json`."""
    if format.startswith("tflite"):
        return _tflite(place, split, model, compressed, recipe, format)
    exported = _exported(place, model, compressed)
    inputs = {
        "exported": exported.digest,
        "calibration": _calibration_key(place, split),
        "format": format,
        "recipe": recipe,
        "code": source_fingerprint("convert"),
        "versions": versions("onnx", "onnxruntime", "numpy"),
    }

    def make(folder: Path) -> None:
        from edgepack.convert import onnx

        place.tell(f"converting {recipe} to {format}", 0, 0)
        float_onnx, rows = (exported.path / "model.onnx").read_bytes(), calibration(place, split)
        readable = f"onnx-{format.partition('-')[2]}"

        def convert() -> tuple[bytes, bytes]:
            data = onnx.quantized(float_onnx, readable, rows)
            return onnx.quantized(float_onnx, format, rows) if format != readable else data, data

        _keep(folder, recipe, format, convert)

    return place.store.produce("convert", inputs, make)


def _calibration_key(place: Place, split: Kept) -> list[object]:
    return [split.digest, place.config.model.history_length, _CALIBRATION_ROWS, _CALIBRATION_SEED]


def _exported(place: Place, model: Model, compressed: Kept) -> Kept:
    inputs = {
        "weights": compressed.digest,
        "model": model.identity,
        "code": source_fingerprint("convert"),
        "versions": versions("tensorflow", "tf2onnx", "onnx"),
    }

    def make(folder: Path) -> None:
        from edgepack.compress import steps
        from edgepack.convert import onnx

        place.tell("exporting ONNX", 0, 0)
        serving = steps.restore(model.build, compressed.path, quantized=False)
        data = onnx.export(serving, length=place.config.model.history_length)
        write_atomic(folder / "model.onnx", data)

    return place.store.produce("export", inputs, make)


def _tflite(place: Place, split: Kept, model: Model, compressed: Kept, recipe: str, format: str) -> Kept:
    inputs = {
        "weights": compressed.digest,
        "model": model.identity,
        "calibration": _calibration_key(place, split),
        "format": format,
        "recipe": recipe,
        "code": source_fingerprint("convert", "compress"),
        "versions": versions("tensorflow", "tf_keras"),
    }

    def make(folder: Path) -> None:
        from edgepack.compress import steps
        from edgepack.convert import tflite

        place.tell(f"converting {recipe} to {format}", 0, 0)
        serving = steps.restore(model.build, compressed.path, quantized="int8" in format)
        length = place.config.model.history_length
        rows = calibration(place, split)

        def convert() -> tuple[bytes, bytes]:
            data = tflite.convert(serving, format, length=length, calibration=rows)
            return data, data

        _keep(folder, recipe, format, convert)

    return place.store.produce("convert", inputs, make)


def _keep(folder: Path, recipe: str, format: str, convert: Callable[[], tuple[bytes, bytes]]) -> None:
    """Write what `convert` returns: the file, and the file that its facts are read from."""
    try:
        data, readable = convert()
    except ConvertError as error:
        # A failure is a result too: the next build need not find it out again.
        write_atomic(folder / "failed.json", msgspec.json.encode(str(error)))
        return
    name = f"model.{format.partition('-')[0]}"
    write_atomic(folder / name, data)
    write_atomic(
        folder / "artifact.json", msgspec.json.encode(_described(name, data, readable, recipe, format))
    )


def _described(name: str, data: bytes, readable: bytes, recipe: str, format: str) -> Artifact:
    import hashlib

    import brotli

    from edgepack.convert import describe

    facts = describe.describe(readable, format)
    return Artifact(
        recipe=recipe,
        format=format,
        file_name=name,
        model_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        deflate_bytes=len(zlib.compress(data, 9)),
        brotli_bytes=len(brotli.compress(data, quality=11)),
        table_bytes=facts.table_bytes,
        ops=facts.ops,
        zero_share=facts.zero_share,
    )
