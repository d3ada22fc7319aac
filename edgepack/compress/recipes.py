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


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The steps between a float model and its artifacts; None leaves a step out."""

    name: str
    pruning: Pruning | None = None
    quantization: QuantizationAware | None = None

    @property
    def trains(self) -> bool:
        """True when the recipe changes the weights."""
        return self.pruning is not None or self.quantization is not None


_QAT = QuantizationAware()

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="float"),
        Recipe(name="ptq"),
        Recipe(name="qat", quantization=_QAT),
        Recipe(name="prune50-ptq", pruning=Pruning()),
        Recipe(name="prune50-qat", pruning=Pruning(), quantization=_QAT),
        Recipe(name="prune80-qat", pruning=Pruning(zero_share=0.8), quantization=_QAT),
        Recipe(name="prune50-24-qat", pruning=Pruning(schedule="2:4"), quantization=_QAT),
    )
}
