"""What is done to a float model, in order. A recipe's name says it: `prune50-qat`, `distil-qat`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from edgepack.errors import ConfigError, did_you_mean
from edgepack.profiles import convert_table
from edgepack.ranges import Method

_Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
_Epochs = Annotated[int, msgspec.Meta(ge=0)]
_Rate = Annotated[float, msgspec.Meta(gt=0)]
_ROUNDING = 1e-9


class Pruning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pruning of Dense kernels and embedding tables: what is least by `criterion` becomes zero.

    `magnitude` takes the same share of every layer. `first-order` takes the share of the whole model that is
    worth least to its ranking (`edgepack.compress.importance`), at once: the schedule must be `constant`.
    `polynomial` raises the share of zeros to `zero_share` over the first half of `epochs`
    (Zhu & Gupta, 2017), `constant` sets it at once, `2:4` zeroes two of every four consecutive values.
    The other half of the epochs mends what is left. With `distil` the epochs listen to the teacher: the
    configured one, or the float model itself where there is none.
    """

    schedule: Literal["polynomial", "constant", "2:4"] = "polynomial"
    criterion: Literal["magnitude", "first-order"] = "magnitude"
    zero_share: _Share = 0.5
    epochs: _Epochs = 4
    learning_rate: _Rate = 1e-3
    distil: bool = False

    def __post_init__(self) -> None:
        """Refuse a schedule that a criterion cannot follow."""
        if self.criterion == "first-order" and self.schedule != "constant":
            raise ValueError("criterion 'first-order' sets its zeros at once: set schedule = 'constant'")
        if self.criterion == "magnitude" and not self.epochs:
            raise ValueError("criterion 'magnitude' sets its zeros while it trains: set epochs to 1 or more")


class QuantizationAware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fine-tuning with every weight and activation rounded to 8 bits on the way forward.

    The rate is a fortieth of SASRec's in training, so that the float model's lists stay: five times as much
    took overlap@10 on MovieLens-1M from 0.92 to 0.86. `distil` as in `Pruning`.
    """

    epochs: _Epochs = 4
    learning_rate: _Rate = 1e-4
    distil: bool = False


class Thinning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Structured pruning: hidden units and attention heads go as a whole; the rest is mended.

    `share` is that of the hidden units of each feed-forward layer, `head_share` that of the heads of each
    attention, of which one goes at least and one stays.
    """

    share: _Share = 0.5
    head_share: _Share = 0.0
    epochs: _Epochs = 4
    learning_rate: _Rate = 1e-3
    distil: bool = False

    def __post_init__(self) -> None:
        """Refuse to take nothing out."""
        if not self.share and not self.head_share:
            raise ValueError("share and head_share are both 0, so that nothing goes: set one above 0")


class Clustering(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """k-means over each Dense kernel and table, whose `clusters` values are then trained.

    Zeros of a pruned model stay and count as one of them. What follows keeps the number.
    """

    clusters: Annotated[int, msgspec.Meta(ge=2, le=255)] = 16
    epochs: _Epochs = 4
    learning_rate: _Rate = 1e-4
    distil: bool = False


class PostTraining(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quantization after training with ranges of edgepack's own, where the converter knows min-max alone.

    `calibration` chooses the ranges of activations (`edgepack.ranges`), `equalize` evens out channels across
    layers first, and `bias_correction` takes from each bias what rounding adds to the mean. With
    `range_correction` ranges are chosen layer by layer from what arrives when weights, corrected biases and
    all ranges before are as the file has them, instead of from the float model. `float_layers` stay float32
    in int8 files: mixed precision.
    """

    calibration: Method = "min-max"
    equalize: bool = False
    bias_correction: bool = False
    range_correction: bool = False
    float_layers: tuple[str, ...] = ()


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which values a weight may take: whole multiples of a step, at most `levels` of them to either side.

    `levels` 7 is 4 bits, 3 is 3 bits, 1 ternary; 127 leaves the range to the weights. `step` is in standard
    deviations of the tensor as it was trained, 0 for the step of least squared error. `rate` is what a bit a
    weight costs in the loss of the fine-tuning, which then spends bits where they rank.
    """

    levels: Annotated[int, msgspec.Meta(ge=1, le=127)] = 127
    step: Annotated[float, msgspec.Meta(ge=0, le=100)] = 0.0
    rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Band(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `share` (0..1) of the items, by popularity, whose rows have `multiple` times the finest step.

    A multiple of 0 leaves nothing of them: they say nothing in a history, and all have the score 0, whoever
    asks. Where most items were taken a time or two, what they would take makes the others' steps finer.
    """

    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    multiple: Annotated[int, msgspec.Meta(ge=0)]


class Codes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Item codes: each row is the sum of one row out of each of `groups` books of `values` rows.

    All items together keep `kept_share` (0..1) of their codes, a byte each; the popular ones keep most.
    """

    groups: Annotated[int, msgspec.Meta(ge=1)] = 8
    values: Annotated[int, msgspec.Meta(ge=2, le=256)] = 256
    kept_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0


class Hashed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hashing: the table has a `share` (0..1) of its rows, each for several items that have a scale each."""

    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.25


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Accuracy control before anything is trained: which precision each layer and table band can do with.

    The weights lose no more than `max_drop` of NDCG@10 and `min_overlap_at_10` of the float model's lists
    allow, on validation users, within `most_trials`. `shrink` begins with 8 bits everywhere and takes
    precision away while that holds; `restore` begins with as little as can be and gives it back until it
    does. The table's rows are cut by popularity into `shares` of the items, the most popular first.
    """

    direction: Literal["shrink", "restore"] = "shrink"
    max_drop: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01
    min_overlap_at_10: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.80
    most_trials: Annotated[int, msgspec.Meta(ge=1)] = 150
    shares: tuple[Annotated[float, msgspec.Meta(gt=0, le=1)], ...] = (0.1, 0.2, 0.3, 0.4)

    def __post_init__(self) -> None:
        """Refuse shares that are none of a catalogue."""
        if not self.shares or sum(self.shares) > 1 + _ROUNDING:
            raise ValueError("shares are parts of the catalogue: each above 0, 1 in sum at most")


class Tables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How item table and kernels are stored, and the fine-tuning that gets them used to it.

    `rank_share` > 0 turns the table to the axes along which errors cost the ranking alike and keeps that
    share of them (1: all, for the grid's sake; it needs a model that looks up and scores with one table).
    `table` is the grid of embedding tables, `network` that of Dense kernels and positions, None leaves either
    at 8 bits. `bands`, most popular items first, gives rows of the table's grid coarser steps, `by_worth`
    every row one by what its errors cost, and `layers` a layer a grid of its own in the network's place.
    `control` finds bands and layers. `codes` puts sums of rows of small books in the place of the table's
    rows, `hashed` shared rows times a scale an item; the table's grid is then that of the books, or of the
    shared rows. Nothing is trained with `epochs` 0.
    """

    rank_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    table: Grid | None = None
    network: Grid | None = None
    bands: tuple[Band, ...] = ()
    by_worth: bool = False
    layers: dict[str, Grid] = {}
    control: Control | None = None
    codes: Codes | None = None
    hashed: Hashed | None = None
    epochs: _Epochs = 8
    learning_rate: _Rate = 1e-3
    distil: bool = False

    def __post_init__(self) -> None:
        """Refuse two ways at once to choose the rows' steps, and steps for rows that are made up of parts."""
        parts = self.codes or self.hashed
        if parts and (self.rank_share or self.bands or self.by_worth or self.control):
            raise ValueError(
                "codes and hashed leave no rows to put on axes or steps of their own: leave out rank_share, "
                "bands, by_worth and control"
            )
        if self.codes and self.hashed:
            raise ValueError("codes and hashed both take the table's place: leave one out")
        if self.control and (self.bands or self.by_worth or self.layers or self.network):
            raise ValueError(
                "control finds bands and the grids of layers: leave out bands, by_worth, layers and network"
            )
        if sum(band.share for band in self.bands) > 1 + _ROUNDING:
            raise ValueError("the shares of bands are parts of the items: they may sum to 1 at most")
        if self.bands and not any(band.multiple for band in self.bands):
            raise ValueError("bands of multiple 0 alone leave no row: give one band a multiple of 1 or more")
        if self.by_worth and self.bands:
            raise ValueError(
                "by_worth and bands both choose the rows' steps: set by_worth = false or no bands"
            )
        if (self.bands or self.by_worth) and self.table is None:
            raise ValueError(
                "bands and by_worth make rows of the table's grid coarser: give table levels or a step"
            )


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steps between a float model and its artifacts; None leaves a step out.

    With `distil` the float model is one that learnt from the configured teacher, else one that never saw it.
    """

    name: str
    distil: bool = False
    thinning: Thinning | None = None
    pruning: Pruning | None = None
    tables: Tables | None = None
    clustering: Clustering | None = None
    quantization: QuantizationAware | None = None
    post_training: PostTraining | None = None

    def __post_init__(self) -> None:
        """Refuse steps of which one undoes or leaves out the other."""
        if self.tables and (self.pruning or self.clustering):
            raise ValueError(
                "grids of tables keep neither zeros nor clusters: leave out tables, or pruning and clustering"
            )
        if self.quantization and self.post_training:
            raise ValueError("quantization trains what post_training would choose: leave out one of them")
        if self.post_training and self.post_training.equalize and (self.tables or self.clustering):
            raise ValueError("equalize moves weights off their grid or cluster: leave it out, or the others")

    @property
    def calibrated(self) -> PostTraining:
        """How files that are calibrated after training are to be."""
        return self.post_training or PostTraining()

    @property
    def wraps(self) -> bool:
        """True when its int8 files are made with ranges that were set on the model's layers."""
        return self.quantization is not None or self.post_training is not None

    @property
    def needs_layers(self) -> bool:
        """True when it looks into a model's layers though it may train nothing."""
        return self.post_training is not None or self.tables is not None

    @property
    def controls(self) -> bool:
        """True when accuracy control chooses its grids."""
        return self.tables is not None and self.tables.control is not None

    @property
    def trains(self) -> bool:
        """True when the recipe changes the weights."""
        return self.distil or bool(self.trainings)

    @property
    def is_guided(self) -> bool:
        """True when a step trains with a teacher, be it the float model itself."""
        return any(step.distil for step in self.trainings)

    @property
    def trainings(self) -> "tuple[Training, ...]":
        """The steps that change the weights by training."""
        steps = (self.thinning, self.pruning, self.tables, self.clustering, self.quantization)
        return tuple(step for step in steps if step is not None and step.epochs)

    @property
    def is_float(self) -> bool:
        """True when nothing is compressed, so that the float formats are what it is for."""
        return self.name in ("float", "distil")


Training = Thinning | Pruning | Tables | Clustering | QuantizationAware
_TRAININGS = ("thinning", "pruning", "tables", "clustering", "quantization")


def _guided(recipe: Recipe, name: str, distil: bool) -> Recipe:
    """Return `recipe` with every training in it listening to the teacher."""
    steps = {
        step: msgspec.structs.replace(settings, distil=True)
        for step in _TRAININGS
        if (settings := getattr(recipe, step)) is not None
    }
    return msgspec.structs.replace(recipe, name=name, distil=distil, **steps)


_QAT = QuantizationAware()
_HEADS = Thinning(share=0.0, head_share=0.5)
_4BIT, _3BIT = Grid(levels=7), Grid(levels=3)
_PLAIN = (
    Recipe(name="float"),
    Recipe(name="ptq"),
    Recipe(name="ptq-percentile", post_training=PostTraining(calibration="percentile")),
    Recipe(name="ptq-mse", post_training=PostTraining(calibration="mse")),
    Recipe(name="ptq-entropy", post_training=PostTraining(calibration="entropy")),
    Recipe(name="ptq-bias", post_training=PostTraining(bias_correction=True)),
    Recipe(name="ptq-ranges", post_training=PostTraining(range_correction=True)),
    Recipe(name="ptq-bias-ranges", post_training=PostTraining(bias_correction=True, range_correction=True)),
    Recipe(name="ptq-equalize", post_training=PostTraining(equalize=True)),
    Recipe(name="ptq-equalize-bias", post_training=PostTraining(equalize=True, bias_correction=True)),
    Recipe(name="qat", quantization=_QAT),
    Recipe(name="prune50-ptq", pruning=Pruning()),
    Recipe(name="prune50-qat", pruning=Pruning(), quantization=_QAT),
    Recipe(name="prune80-qat", pruning=Pruning(zero_share=0.8), quantization=_QAT),
    Recipe(name="prune50-24-qat", pruning=Pruning(schedule="2:4"), quantization=_QAT),
    Recipe(
        name="prune50-fisher-qat",
        pruning=Pruning(criterion="first-order", schedule="constant"),
        quantization=_QAT,
    ),
    Recipe(name="thin50-ptq", thinning=Thinning()),
    Recipe(name="thin50-qat", thinning=Thinning(), quantization=_QAT),
    Recipe(name="heads50-ptq", thinning=_HEADS),
    Recipe(name="heads50-qat", thinning=_HEADS, quantization=_QAT),
    Recipe(name="cluster16-ptq", clustering=Clustering()),
    Recipe(name="cluster16-qat", clustering=Clustering(), quantization=_QAT),
    Recipe(name="cluster32-qat", clustering=Clustering(clusters=32), quantization=_QAT),
    Recipe(name="prune50-cluster16-qat", pruning=Pruning(), clustering=Clustering(), quantization=_QAT),
    Recipe(name="table-4bit-qat", tables=Tables(table=_4BIT, network=_4BIT), quantization=_QAT),
    Recipe(name="table-3bit-qat", tables=Tables(table=_3BIT, network=_4BIT), quantization=_QAT),
    Recipe(
        name="table-axes-qat",
        tables=Tables(rank_share=1.0, table=Grid(step=0.35), network=Grid(levels=15), by_worth=True),
        quantization=_QAT,
    ),
    Recipe(name="table-codes-qat", tables=Tables(codes=Codes()), quantization=_QAT),
    Recipe(name="table-hash-qat", tables=Tables(hashed=Hashed()), quantization=_QAT),
    Recipe(name="control-ptq", tables=Tables(control=Control(), epochs=0)),
    Recipe(name="control-qat", tables=Tables(control=Control()), quantization=_QAT),
)
# `guided-qat` listens to [teacher] or, where there is none, to the float model; `distil-qat` begins with a
# float student that learnt from [teacher], too.
_GUIDED = [_guided(recipe, f"guided-{recipe.name}", False) for recipe in _PLAIN if recipe.trains]
_DISTILLED = [_guided(recipe, f"distil-{recipe.name}".removesuffix("-float"), True) for recipe in _PLAIN]

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*_PLAIN, *_GUIDED, *_DISTILLED)}

SETS: dict[str, tuple[str, ...]] = {
    "lossless": ("float",),
    "fast": ("ptq",),
    "balanced": ("ptq", "qat"),
    "smallest": ("qat", "guided-qat", "guided-table-4bit-qat", "guided-table-3bit-qat"),
}
"""Names for what most people want, and the recipes that they stand for. `lossless` ships float files, `fast`
trains nothing, `balanced` lets training mend what rounding costs, and `smallest` tries all that is smaller:
what loses too much is not chosen."""


def decoded(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return recipe names with the names of SETS replaced by what they stand for, each once."""
    return tuple(dict.fromkeys(one for name in names for one in SETS.get(name, (name,))))


def known(own: Mapping[str, Mapping[str, Any]]) -> dict[str, Recipe]:
    """Return RECIPES and a user's `own`: name -> the recipe that it starts `from` and what differs in it.

    Raises ConfigError for a name that is taken, a recipe that is not known, and a step or key that is not.
    """
    return {**RECIPES, **{name: _own(name, settings) for name, settings in own.items()}}


def _own(name: str, settings: Mapping[str, Any]) -> Recipe:
    where = f"edgepack.toml: compress.own.{name}"
    if name in RECIPES or name in SETS:
        raise ConfigError(where, "there is a recipe of that name", remedy="Give it another name.")
    begins = settings.get("from", "float")
    if not isinstance(begins, str) or begins not in RECIPES:
        raise ConfigError(
            f"{where}.from",
            f"there is no recipe '{begins}'",
            allowed=f"known are {', '.join(RECIPES)}",
            remedy=f"{did_you_mean(str(begins), list(RECIPES))}Correct or delete it.",
        )
    differs = {key: value for key, value in settings.items() if key != "from"}
    return convert_table(
        _merged(msgspec.to_builtins(RECIPES[begins]), {**differs, "name": name}), Recipe, where
    )


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `over` in it, tables inside tables likewise."""
    inner = {k: _merged(_table(base.get(k)), v) if isinstance(v, dict) else v for k, v in over.items()}
    return {**base, **inner}


def _table(found: Any) -> dict[str, Any]:
    # Where a table stands in the place of a number, the message is the conversion's.
    return found if isinstance(found, dict) else {}
