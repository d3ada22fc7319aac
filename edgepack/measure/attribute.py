"""Which operators of a model cost what on an emulated core: prefixes of its graph, counted and subtracted."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from edgepack.errors import MeasureError
from edgepack.measure.slow import slow
from edgepack.profiles import Emulation
from edgepack.results import Attribution, Measurement, Operator, OperatorCost
from edgepack.runtimes import arm
from edgepack.runtimes.qemu import Inputs

DEADLINE_S = 600
_MOST_OPERATORS = 2_000
"""The counting plugin keeps 4,096 inferences, and each prefix is run twice."""


def attribute(
    artifact: Path,
    prefixes: Iterable[bytes],
    operators: tuple[Operator, ...],
    whole: Measurement,
    emulation: Emulation,
    inputs: Inputs,
    *,
    deadline_s: float = DEADLINE_S,
) -> Attribution:
    """Attribute what `whole` measured of `artifact` to its operators.

    `prefixes` are the model's first 1, 2 … n operators as files, `operators` all n of them; `inputs` is the
    row (int32 [1, L] each) that `whole` was measured with. The second inference of each prefix is counted,
    which executes what the third does.

    Raises MeasureError for a model of more operators than can be counted or one that the runtime cannot
    run, and what `edgepack.runtimes.arm.count_each` raises.
    """
    if len(operators) > _MOST_OPERATORS:
        raise MeasureError(
            artifact.name,
            f"has {len(operators):,} operators",
            allowed=f"up to {_MOST_OPERATORS:,} can be counted one by one",
            remedy="Give a smaller model.",
        )
    counted = arm.count_each(prefixes, artifact, inputs, emulation, deadline_s=deadline_s)
    costs = tuple(_costs(operators, counted))
    found = not_attributed(whole, emulation, "")
    return msgspec.structs.replace(found, operators=costs, slow=slow(costs, found.instructions))


def not_attributed(whole: Measurement, emulation: Emulation, failure: str) -> Attribution:
    """Return what was measured of the whole model, with no operators and the reason."""
    return Attribution(
        core=emulation.core,
        source="the graph cut after each operator, every part run in one process, its counts less the last's",
        operators=(),
        instructions=_figure(whole, "instructions"),
        l1d_misses=_figure(whole, "l1d_misses"),
        l2_misses=_figure(whole, "l2_misses"),
        failure=failure,
    )


def _costs(operators: Sequence[Operator], counted: Sequence[arm.Prefix]) -> Iterator[OperatorCost]:
    taken = counted[-1].in_xnnpack
    before = (0, 0, 0)
    for index, (operator, prefix) in enumerate(zip(operators, counted, strict=True)):
        warm = prefix.warm
        now = (warm.instructions, warm.l1d_misses, warm.l2_misses)
        instructions, l1d_misses, l2_misses = (a - b for a, b in zip(now, before, strict=True))
        yield OperatorCost(
            operator=operator,
            in_xnnpack=index in taken,
            instructions=instructions,
            l1d_misses=l1d_misses,
            l2_misses=l2_misses,
        )
        before = now


def _figure(whole: Measurement, name: str) -> int:
    number = whole.get(name)
    if number is None or number.value is None:
        raise MeasureError(whole.target, f"has no figure `{name}`", remedy="Measure the model first.")
    return int(number.value)
