"""Where a model's cost on a core comes from: its operators as table rows, as sentences, as a picture."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgepack.report import units
from edgepack.report.tables import columns, to_json
from edgepack.results import Attribution, BuildResult, OperatorCost

TOP_IN_TEXT, TOP_IN_PAGE = 5, 12
HEADER = ("operator", "layer", "result", "instructions", "share", "L1D misses", "L2 misses", "runs in")
FAMILIES = {
    "product": ("FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D"),
    "arithmetic": ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "SQUARED_DIFFERENCE"),
    "conversion": ("QUANTIZE", "DEQUANTIZE", "CAST"),
    "movement": ("GATHER", "RESHAPE", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "CONCATENATION", "PAD"),
}
OTHER_FAMILY = "function"


class Counted(NamedTuple):
    """An attribution with all the targets that it holds for, comma-separated."""

    targets: str
    attribution: Attribution


class Frame(NamedTuple):
    """One box of the picture: children lie side by side below it; `style` is a class of the style sheet."""

    name: str
    instructions: int
    style: str
    words: str
    children: "tuple[Frame, ...]" = ()


def family(kind: str) -> str:
    """Return which family of operators `kind` belongs to: a key of FAMILIES, else OTHER_FAMILY."""
    return next((name for name, kinds in FAMILIES.items() if kind in kinds), OTHER_FAMILY)


def counted(result: BuildResult) -> list[Counted]:
    """Return every attribution once: targets with the same core and model share one."""
    targets: dict[Attribution, list[str]] = {}
    for target in result.targets:
        if target.attribution is not None:
            targets.setdefault(target.attribution, []).append(target.target)
    return [Counted(", ".join(names), attribution) for attribution, names in targets.items()]


def rows(attribution: Attribution, top: int) -> list[tuple[str, ...]]:
    """Return the `top` most expensive operators, the others, what no operator explains, the whole."""
    ordered = sorted(attribution.operators, key=lambda cost: -cost.instructions)
    shown, others = ordered[:top], ordered[top:]
    left = [tuple(sum(getattr(one, name) for one in others) for name in _FIGURES)] if others else []
    found = [_row(attribution, *_words(one), _values(one), _runs_in(one)) for one in shown]
    found += [_row(attribution, f"{len(others)} others", "", "", values, "") for values in left]
    rest = tuple(attribution.rest(name) for name in _FIGURES)
    found.append(_row(attribution, "runtime and rest", "", "", rest, ""))
    whole = tuple(getattr(attribution, name) for name in _FIGURES)
    return [*found, _row(attribution, "whole model", "", "", whole, "")]


_FIGURES = ("instructions", "l1d_misses", "l2_misses")


def _values(cost: OperatorCost) -> tuple[int, ...]:
    return tuple(getattr(cost, name) for name in _FIGURES)


def _words(cost: OperatorCost) -> tuple[str, str, str]:
    operator = cost.operator
    return operator.kind, operator.layer, f"{operator.dtype} {list(operator.shape)}"


def _runs_in(cost: OperatorCost) -> str:
    return "XNNPACK" if cost.in_xnnpack else "LiteRT"


def _row(
    attribution: Attribution, kind: str, layer: str, made: str, values: Sequence[int], runs_in: str
) -> tuple[str, ...]:
    share = units.percent(values[0] / attribution.instructions) if attribution.instructions else ""
    return kind, layer, made, f"{values[0]:,}", share, f"{values[1]:,}", f"{values[2]:,}", runs_in


def heading(one: Counted) -> str:
    """Return which core and which targets an attribution is for, with its provenance."""
    attribution = one.attribution
    return f"{attribution.core} ({one.targets}), {attribution.provenance}"


def render(attribution: Attribution, target: str, top: int, as_json: bool) -> str:
    """Return the table and what is known to be slow, as text or JSON."""
    if as_json:
        return to_json(attribution)
    lines = [f"{heading(Counted(target, attribution))}: {attribution.source}\n"]
    lines.append(columns([HEADER, *rows(attribution, top)]))
    lines += [f"slow: {sentence}\n" for sentence in attribution.slow]
    return "".join(lines) if attribution.slow else "".join([*lines, "slow: nothing that is known to be\n"])


def frames(attribution: Attribution) -> Frame:
    """Return the picture's boxes: the whole, groups of layers, layers, operators.

    Layers are grouped by the first word of their names where several share it. Operators that cost less than
    nothing have no box.
    """
    layers = dict.fromkeys(cost.operator.layer for cost in attribution.operators)
    words = Counter(layer.partition("_")[0] for layer in layers)
    groups: dict[str, dict[str, list[Frame]]] = {}
    for cost in attribution.operators:
        layer = cost.operator.layer
        word = layer.partition("_")[0]
        group = groups.setdefault(word if words[word] > 1 else layer, {})
        if cost.instructions > 0:
            group.setdefault(layer, []).append(_operator_frame(attribution, cost))
    parts = [
        _frame(
            attribution,
            name,
            (_frame(attribution, layer.removeprefix(f"{name}_"), found) for layer, found in group.items()),
        )
        for name, group in groups.items()
    ]
    rest = attribution.rest("instructions")
    if rest > 0:
        parts.append(Frame("runtime and rest", rest, "rest", _told(attribution, "runtime and rest", rest)))
    whole = units.quantity("instructions", attribution.instructions)
    return _frame(attribution, f"{attribution.core}, {whole} {attribution.provenance}", parts)


def _operator_frame(attribution: Attribution, cost: OperatorCost) -> Frame:
    operator = cost.operator
    misses = f"{cost.l1d_misses:,} L1D misses, {cost.l2_misses:,} L2 misses"
    words = _told(attribution, f"{operator.kind} of {operator.layer}", cost.instructions)
    style = family(operator.kind) + ("" if cost.in_xnnpack else " outside")
    return Frame(operator.kind, cost.instructions, style, f"{words}, {misses}, in {_runs_in(cost)}")


def _frame(attribution: Attribution, name: str, children: Iterable[Frame]) -> Frame:
    inside = tuple(child for child in children if child.instructions > 0)
    instructions = sum(child.instructions for child in inside)
    share = units.percent(instructions / attribution.instructions, 0) if attribution.instructions else ""
    return Frame(f"{name} {share}", instructions, "group", _told(attribution, name, instructions), inside)


def _told(attribution: Attribution, name: str, instructions: int) -> str:
    share = f" ({units.percent(instructions / attribution.instructions)})" if attribution.instructions else ""
    return f"{name}: {instructions:,} instructions{share} {attribution.provenance}"
