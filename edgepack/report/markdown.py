"""The summary of a build as Markdown, short enough for a comment under a change."""

import html
import re
from collections.abc import Iterable

from edgepack.report import controlled, examples, groups, operators, sensitivity, units, views
from edgepack.results import BuildResult, Controlled, Sensitivity

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")


def render(result: BuildResult) -> str:
    """Return headline, targets, reasons, quality and recipes as GitHub-flavoured Markdown."""
    gate = units.metric_words(result.gate_metric)
    lines = [views.target_line(target, result.gate_metric) for target in result.targets]
    parts = [
        f"**{_escaped(views.headline(result))}**",
        f"### Targets\n\n{_table(views.TARGET_HEADER, lines)}",
        f"Drop is the relative loss of {gate} with its 95 % interval.",
        _reasons(result),
        f"### Ranking quality\n\n{_table(views.quality_header(result), views.quality_rows(result))}",
        _escaped(f"Judged on the {result.protocol}. {views.noise_floor_sentence(result)}"),
        f"### Recipes\n\n{_table(views.recipe_header(result), views.recipe_rows(result))}",
        _groups(result),
        *(_sensitivity(one) for one in result.sensitivity),
        *(_controlled(one) for one in result.controlled),
        *(_examples(one) for one in examples.shown(result)),
        *(_operators(one) for one in operators.counted(result)),
        _escaped(f"{views.stages_sentence(result)} edgepack {result.edgepack_version}."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reasons(result: BuildResult) -> str:
    without = [
        f"- **{_escaped(target.target)}** has no bundle: {_escaped(target.why)}"
        for target in result.targets
        if target.chosen is None
    ]
    dropped = [
        f"- dropped {_escaped(f'{one.candidate} ({one.runtime}): {one.reason}; {one.targets}')}"
        for one in views.dropped_groups(result)
    ]
    large = [f"- too large: {_escaped(sentence)}" for sentence in views.too_large(result)]
    return "\n".join(without + dropped + large)


def _groups(result: BuildResult) -> str:
    rows = groups.rows(result)
    table = _table(map(_escaped, groups.header(result)), rows)
    return f"### Who pays for it\n\n{table}\n\n{_escaped(groups.NOTE)}" if rows else ""


def _sensitivity(one: Sensitivity) -> str:
    return f"### {sensitivity.heading(one)}\n\n{_table(sensitivity.HEADER, sensitivity.rows(one))}"


def _controlled(one: Controlled) -> str:
    heading = f"### {_escaped(controlled.heading(one))}\n\n{_escaped(controlled.sentence(one))}"
    return f"{heading}\n\n{_table(controlled.HEADER, controlled.rows(one))}"


def _examples(one: examples.Shown) -> str:
    heading = f"### Users before and after on {_escaped(one.targets)}"
    return f"{heading}\n\n{_table(examples.HEADER, examples.rows(one.examples))}\n\n{_escaped(examples.NOTE)}"


def _operators(one: operators.Counted) -> str:
    heading = f"### Most expensive operators on {_escaped(operators.heading(one))}"
    if one.attribution.failure:
        return f"{heading}\n\nNot counted: {_escaped(one.attribution.failure)}"
    table = _table(operators.HEADER, operators.rows(one.attribution, operators.TOP_IN_TEXT))
    return "\n\n".join(
        [heading, table, *(f"- slow: {_escaped(sentence)}" for sentence in one.attribution.slow)]
    )


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [_row(names), _row(["---"] * len(names)), *(_row(map(_escaped, row)) for row in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", html.escape(units.printable(text), quote=False))
