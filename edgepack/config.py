"""`edgepack.toml` read into frozen structs; an unknown key is an error that suggests the right one."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from edgepack.errors import ConfigError
from edgepack.profiles import Budget, decode_toml

Scalar = bool | int | float | str


class _Checked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ShopConfig(_Checked, frozen=True, kw_only=True):
    """The embedded synthetic shop: catalogue size, customers and seed."""

    items: int = 2_000
    users: int | None = None
    seed: int = 7


class CatalogueConfig(_Checked, frozen=True, kw_only=True):
    """What the apps show of the items: a product list of a row an item, or columns of the log itself.

    `path` and `format` of the list, None for the log; `item` names the column with the ids (None: the log's,
    or "item"), `title`, `price` and `category` those with what is shown. `currency` is an ISO 4217 code, and
    `notice` a line that the apps must show, as a licence may ask for.
    """

    title: str
    path: str | None = None
    format: str | None = None
    item: str | None = None
    price: str | None = None
    category: str | None = None
    currency: str = ""
    notice: str = ""


class DataConfig(_Checked, frozen=True, kw_only=True):
    """Where the log is and how it is read: one of `path`, `set` (a public set by name) or `shop`.

    `columns` and `cleaning` hold the keys of `data.read.Columns` and `data.clean.CleaningRules`. `collected`
    is a folder with the histories that the apps exported (`*.csv`), which join the log.
    """

    path: str | None = None
    set: str | None = None
    shop: ShopConfig | None = None
    format: str | None = None
    columns: dict[str, str] = {}
    cleaning: dict[str, Scalar | None] = {}
    split: Literal["leave-one-out", "next-basket"] | None = None
    catalogue: CatalogueConfig | None = None
    collected: str | None = None


class ModelConfig(_Checked, frozen=True, kw_only=True):
    """The recommender: a `family` of `models/`, or the user's own `file`; L is `history_length`.

    `query_length` is Q, how many n-grams of the search text a search model takes (0: it takes no search);
    `query_buckets` how many different ones it knows.
    """

    family: str | None = None
    file: str | None = None
    history_length: int = 50
    query_length: int = 0
    query_buckets: int = 4_096
    hyper: dict[str, Scalar] = {}


class TeacherConfig(ModelConfig, frozen=True, kw_only=True):
    """A bigger model that [model] learns from and is held against: keys as [model], and its `training`.

    It may be of another family, width, depth and history length, or a `file` that came trained. Recipes
    named `distil…` start from [model] trained by it, and every figure of quality compares with it. With
    `seeds` of 2 or more it is an ensemble: the mean of the scores of that many trainings, which differ in
    their seed alone.
    """

    training: dict[str, Scalar] = {}
    seeds: int = 1


class CompressConfig(_Checked, frozen=True, kw_only=True):
    """Recipes beside the float model; each becomes candidates in every quantized format that takes it.

    `own` names more of them: `from` says which one each starts from, the rest what differs in its steps.
    `training` holds keys of `train.settings.TrainingSettings` for their fine-tunings, over the model's own.
    """

    recipes: tuple[str, ...] = ("ptq", "qat", "prune50-qat")
    own: dict[str, dict[str, Any]] = {}
    training: dict[str, Scalar] = {}


class TargetsConfig(_Checked, frozen=True, kw_only=True):
    """Globs of target names, and a folder with the user's own profiles."""

    names: tuple[str, ...] = ("*",)
    folder: str | None = None


class QualityConfig(_Checked, frozen=True, kw_only=True):
    """How ranking is judged: the K of every @K metric, seen items filtered or not, the noise floor.

    `noise_floor` trains what all is held against once more with other seeds (a teacher as often as it has
    seeds), so that the overlap of two equal models stands beside every overlap. `groups` is a CSV file of
    users and the groups that they belong to (a heading, the user first, then one column a grouping),
    `group_columns` names columns of the log that do so; each is reported and judged beside the groups by
    history length and by the target's popularity.
    `attribute_loss` also tells what each layer and each group of the item table's rows costs alone.
    """

    k: int = 10
    filter_seen: bool = True
    noise_floor: bool = True
    groups: str | None = None
    group_columns: tuple[str, ...] = ()
    attribute_loss: bool = False


class Config(_Checked, frozen=True, kw_only=True):
    """One build. `budget` maps a target glob to limits that replace the profile's own.

    `model` is what ships. With a `teacher` it is the student, and `distillation` holds keys of
    `train.settings.Distillation`; without one it is the reference itself. `training` holds keys of
    `train.settings.TrainingSettings`.
    """

    name: str = "recommender"
    seed: int = 1
    prefer: Literal["download", "latency"] = "download"
    data: DataConfig
    model: ModelConfig = ModelConfig(family="sasrec")
    training: dict[str, Scalar] = {}
    teacher: TeacherConfig | None = None
    distillation: dict[str, Scalar] = {}
    compress: CompressConfig = CompressConfig()
    targets: TargetsConfig = TargetsConfig()
    quality: QualityConfig = QualityConfig()
    budget: dict[str, Budget] = {}


DEFAULT = Path(__file__).parent / "default.toml"


def load_config(path: Path) -> Config:
    """Read and check a build's configuration. Raises ConfigError naming file, key and remedy."""
    config = decode_toml(path, Config)
    _exactly_one(path, "data", {key: getattr(config.data, key) for key in ("path", "set", "shop")})
    for table, model in (("model", config.model), ("teacher", config.teacher)):
        if model is not None:
            _check_model(path, table, model)
    if config.teacher is not None:
        _check_seeds(path, config.teacher)
    return config


def _check_seeds(path: Path, teacher: TeacherConfig) -> None:
    if teacher.seeds < 1:
        raise ConfigError(
            f"{path}: teacher.seeds",
            f"is {teacher.seeds}",
            allowed="it counts trainings, at least 1",
            remedy="Leave it out for a single teacher.",
        )
    if teacher.seeds > 1 and teacher.file is not None:
        raise ConfigError(
            f"{path}: teacher.seeds",
            f'is {teacher.seeds} beside teacher.file = "{teacher.file}"',
            allowed="only families of models/ are trained once for each seed",
            remedy="Leave out the one or the other.",
        )


def _check_model(path: Path, table: str, model: ModelConfig) -> None:
    _exactly_one(path, table, {key: getattr(model, key) for key in ("family", "file")})
    if model.history_length < 1:
        raise ConfigError(
            f"{path}: {table}.history_length",
            f"is {model.history_length}",
            allowed="it counts items, at least 1",
            remedy="Set it to the number of newest items the model looks at.",
        )
    _check_search(path, table, model)


def _check_search(path: Path, table: str, model: ModelConfig) -> None:
    if model.query_length < 0 or model.query_buckets < 1:
        raise ConfigError(
            f"{path}: {table}.query_length and query_buckets",
            f"are {model.query_length} and {model.query_buckets}",
            allowed="they count n-grams, at least 0 and at least 1",
            remedy="Leave both out for a model that takes no search text.",
        )
    if model.query_length and model.file is not None:
        raise ConfigError(
            f"{path}: {table}.query_length",
            f'is set beside {table}.file = "{model.file}"',
            allowed="only families of models/ can take a search",
            remedy="Leave out the one or the other.",
        )


def _exactly_one(path: Path, table: str, choices: dict[str, object]) -> None:
    given = [key for key, value in choices.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"{path}: [{table}]",
            f"sets {' and '.join(given) or 'none'} of {', '.join(choices)}",
            allowed="exactly one names the source",
            remedy=f"Keep one of {', '.join(choices)}.",
        )


def beside(config_path: Path, name: str) -> Path:
    """Return `name` as a path, relative to the folder of the configuration file that mentions it."""
    return (config_path.parent / name).resolve()
