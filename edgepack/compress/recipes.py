"""What is done to a float model, in order. A recipe's name says it: `prune50-qat`."""

from typing import Literal

import msgspec


class Pruning(msgspec.Struct, frozen=True, kw_only=True):
    """Magnitude pruning of Dense kernels and embedding tables.

    `polynomial` raises the share of zeros to `zero_share` over the first half of `epochs`
    (Zhu & Gupta, 2017), `constant` sets it at once, `2:4` zeroes two of every four consecutive values.
    The other half of the epochs mends what is left.
    """

    schedule: Literal["polynomial", "constant", "2:4"] = "polynomial"
    zero_share: float = 0.5
    epochs: int = 4
    learning_rate: float = 1e-3


class QuantizationAware(msgspec.Struct, frozen=True, kw_only=True):
    """Fine-tuning with every weight and activation rounded to 8 bits on the way forward.

    The rate is a fortieth of SASRec's in training, so that the float model's lists stay: five times as much
    took overlap@10 on MovieLens-1M from 0.92 to 0.86.
    """

    epochs: int = 4
    learning_rate: float = 1e-4


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """Which values a weight may take: whole multiples of a step, at most `levels` of them to either side.

    `levels` 7 is 4 bits, 3 is 3 bits, 1 ternary; 127 leaves the range to the weights. `step` is in standard
    deviations of the tensor as it was trained, 0 for the step of least squared error.
    """

    levels: int = 127
    step: float = 0.0


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """A `share` (0..1) of the items, by popularity, whose rows have `multiple` times the finest step."""

    share: float
    multiple: int


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """How item table and kernels are stored, and the fine-tuning that gets them used to it.

    `rank_share` > 0 turns the table into its principal axes and keeps that share of them (1: all, for the
    grid's sake; it needs a model that looks up and scores with one table). `table` is the grid of embedding
    tables, `network` that of Dense kernels and positions, None leaves either at 8 bits. `bands`, most
    popular items first, gives rows of the table coarser steps. Nothing is trained with `epochs` 0.
    """

    rank_share: float = 0.0
    table: Grid | None = None
    network: Grid | None = None
    bands: tuple[Band, ...] = ()
    epochs: int = 8
    learning_rate: float = 1e-3


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The steps between a float model and its artifacts; None leaves a step out."""

    name: str
    pruning: Pruning | None = None
    tables: Tables | None = None
    quantization: QuantizationAware | None = None

    @property
    def trains(self) -> bool:
        """True when the recipe changes the weights."""
        return any((self.pruning, self.tables, self.quantization))


_QAT = QuantizationAware()
_4BIT, _3BIT = Grid(levels=7), Grid(levels=3)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="float"),
        Recipe(name="ptq"),
        Recipe(name="qat", quantization=_QAT),
        Recipe(name="table-4bit-qat", tables=Tables(table=_4BIT, network=_4BIT), quantization=_QAT),
        Recipe(name="table-3bit-qat", tables=Tables(table=_3BIT, network=_4BIT), quantization=_QAT),
        Recipe(
            name="table-axes-qat",
            tables=Tables(rank_share=1.0, table=Grid(step=1.5), network=_4BIT),
            quantization=_QAT,
        ),
        Recipe(name="prune50-ptq", pruning=Pruning()),
        Recipe(name="prune50-qat", pruning=Pruning(), quantization=_QAT),
        Recipe(name="prune80-qat", pruning=Pruning(zero_share=0.8), quantization=_QAT),
        Recipe(name="prune50-24-qat", pruning=Pruning(schedule="2:4"), quantization=_QAT),
    )
}
