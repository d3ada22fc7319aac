"""What is known to be slow in LiteRT on ARM, found in a model's operators and their own counts.

The thresholds stand between XNNPACK's kernels and the reference ones, as counted in SASRec files on
Cortex-A53, A72 and A76: XNNPACK spends 0.1 to 0.7 instructions on a multiplication and 1 to 3 on an element
of an elementwise operator, LiteRT's own kernels 1.3 to 2.7 and up to 400.
"""

from collections.abc import Iterator, Mapping, Sequence

from edgepack.results import Measurement, Operator, OperatorCost

_LEAST_SHARE = 0.05
"""Of the model's instructions: what costs less is not worth a change."""
_LEAST_INSTRUCTIONS_OF_REFERENCE_KERNELS = {"multiplication": 1.0, "element": 20.0}
_ELEMENTWISE = {"MUL", "ADD", "SUB"}
_FROM_MEAN = {"SUB", "SQUARED_DIFFERENCE"}
_SQUARES = {"SQUARE", "SQUARED_DIFFERENCE"}
_NORM_PARTS = {*_ELEMENTWISE, *_FROM_MEAN, "MEAN", "SQUARE", "CAST"}
# The last is a root that is looked up in a table, as edgepack's own int8 files do.
_ROOTS = {"RSQRT", "SQRT", "GATHER"}


def slow(costs: Sequence[OperatorCost], instructions: int) -> tuple[str, ...]:
    """Return a sentence for each thing that is known to be slow and costs this model a share worth a change.

    `instructions` are the whole model's.
    """
    checks = (_dynamic_shapes, _outside_xnnpack, _reference_kernels, _unfused_norms)
    return tuple(sentence for check in checks for sentence in check(costs, instructions))


def slower_than_float(candidates: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return a sentence for each int8 candidate that executes more instructions than the float32 one.

    `candidates` are measurements on one core, by names that end with the format.
    """
    counts = {name: _instructions(measurement) for name, measurement in candidates.items()}
    limit = min((count for name, count in counts.items() if count and name.endswith("-float32")), default=0)
    return tuple(
        f"int8 slower than float: {name} executes {count:,} instructions, {count / limit - 1:.0%} more than "
        f"float32 with {limit:,}. Take float32 or float16 here where the bytes allow it"
        for name, count in counts.items()
        if "int8" in name and limit and count and count > limit
    )


def _instructions(measurement: Measurement) -> int | None:
    number = measurement.get("instructions")
    return None if number is None or number.value is None else int(number.value)


def _dynamic_shapes(costs: Sequence[OperatorCost], whole: int) -> Iterator[str]:
    found = [cost for cost in costs if not cost.operator.static]
    if found:
        yield (
            f"dynamic shapes in {_kinds(found)}: {_share(found, whole)}. XNNPACK leaves them alone, and "
            "memory is planned anew while the model runs. Convert with batch 1 and fixed lengths"
        )


def _outside_xnnpack(costs: Sequence[OperatorCost], whole: int) -> Iterator[str]:
    found = [cost for cost in costs if not cost.in_xnnpack]
    if _weighs(found, whole):
        pieces = sum(
            cost.in_xnnpack and (index == 0 or not costs[index - 1].in_xnnpack)
            for index, cost in enumerate(costs)
        )
        cut = f" and cut XNNPACK's part into up to {pieces} pieces" if pieces > 1 else ""
        yield (
            f"operators outside XNNPACK: {_kinds(found)}, {_share(found, whole)}. They run in LiteRT's own "
            f"kernels{cut}"
        )


def _reference_kernels(costs: Sequence[OperatorCost], whole: int) -> Iterator[str]:
    for kind in dict.fromkeys(cost.operator.kind for cost in costs):
        for unit, least in _LEAST_INSTRUCTIONS_OF_REFERENCE_KERNELS.items():
            outside = (one for one in costs if one.operator.kind == kind and not one.in_xnnpack)
            found = [one for one in outside if _each(one, unit) >= least]
            if _weighs(found, whole, _LEAST_SHARE / 2):
                most = max(_each(one, unit) for one in found)
                yield (
                    f"reference kernels: {_kinds(found)}, {_share(found, whole)}, up to {most:,.1f} "
                    f"instructions for each {unit}. Replace it by operators that XNNPACK has, or run it on "
                    "fewer values"
                )


def _each(cost: OperatorCost, unit: str) -> float:
    products = cost.operator.multiplications
    if (products is None) == (unit == "multiplication"):
        return 0.0
    # Small results tell of what a call costs, not of a kernel.
    count = products if products is not None else cost.operator.elements
    return cost.instructions / count if count >= 32 else 0.0


def _unfused_norms(costs: Sequence[OperatorCost], whole: int) -> Iterator[str]:
    norms = [norm for norm in map(_Norms(costs).around, range(len(costs))) if norm]
    found = [costs[index] for index in sorted(set().union(*norms))] if norms else []
    if _weighs(found, whole):
        layers = ", ".join(dict.fromkeys(one.operator.layer for one in found))
        yield (
            f"unfused norms: {len(norms)} in {len(found)} operators ({layers}), {_share(found, whole)}. "
            "TFLite has no such operator: use fewer, or on fewer positions"
        )


class _Norms:
    """Finds the operators of a LayerNorm or RMSNorm around its root, by what makes and uses which tensor."""

    def __init__(self, costs: Sequence[OperatorCost]) -> None:
        self.operators = [cost.operator for cost in costs]
        self.maker = {tensor: i for i, one in enumerate(self.operators) for tensor in one.outputs}

    def around(self, index: int) -> set[int]:
        """Return the numbers of the operators that belong to the root `index`, none if it is no norm's."""
        if self.operators[index].kind not in _ROOTS:
            return set()
        found, squared = {index}, False
        ahead = list(self.operators[index].inputs)
        while ahead:
            made_by = self.maker.get(ahead.pop(0))
            if made_by is None or made_by in found or not self._belongs(self.operators[made_by], squared):
                continue
            one = self.operators[made_by]
            found.add(made_by)
            squared = squared or _is_square(one)
            # What is normalized comes from elsewhere; only its mean belongs to the norm.
            ahead += [i for i in one.inputs if one.kind not in _FROM_MEAN or self._is_mean(i)]
        return found | self._after(found) if squared else set()

    def _belongs(self, one: Operator, squared: bool) -> bool:
        """Say whether an operator is a norm's: before its square there is nothing but a mean, if any."""
        if squared:
            return one.kind == "MEAN" or (one.kind in _FROM_MEAN and any(map(self._is_mean, one.inputs)))
        return one.kind in _NORM_PARTS

    def _is_mean(self, tensor: int) -> bool:
        return tensor in self.maker and self.operators[self.maker[tensor]].kind == "MEAN"

    def _after(self, found: set[int]) -> set[int]:
        """Return the elementwise operators that use nothing but what the norm makes or what it is given."""
        known = {tensor for i in found for tensor in (*self.operators[i].inputs, *self.operators[i].outputs)}
        made = {tensor for i in found for tensor in self.operators[i].outputs}
        after: set[int] = set()
        for index in range(min(found), len(self.operators)):
            one = self.operators[index]
            if (
                index not in found
                and one.kind in _ELEMENTWISE
                and set(one.inputs) <= known
                and made & set(one.inputs)
            ):
                after.add(index)
                known.update(one.outputs)
                made.update(one.outputs)
        return after


def _is_square(one: Operator) -> bool:
    return one.kind in _SQUARES or (one.kind == "MUL" and len(set(one.inputs)) == 1)


def _weighs(found: Sequence[OperatorCost], whole: int, least: float = _LEAST_SHARE) -> bool:
    return bool(found) and sum(cost.instructions for cost in found) >= least * whole


def _share(found: Sequence[OperatorCost], whole: int) -> str:
    instructions = sum(cost.instructions for cost in found)
    return f"{instructions:,} instructions ({instructions / whole:.0%})"


def _kinds(found: Sequence[OperatorCost]) -> str:
    counts = {kind: 0 for kind in (cost.operator.kind for cost in found)}
    for cost in found:
        counts[cost.operator.kind] += 1
    return ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in counts.items())
