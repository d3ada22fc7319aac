"""The terminal summary of a build: verdict first, then quality, then one line a target."""

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgepack.report import operators, units, views
from edgepack.results import BuildResult

_STYLES = {"within": "green", "over": "red", "not measured": "yellow", "undecided": "yellow"}


def render(result: BuildResult, *, width: int = 120, color: bool = False) -> str:
    """Return the summary as text, tables at most `width` columns wide; the headline is never broken.

    `color` adds ANSI colours. Characters that a terminal would obey are blanked.
    """
    output = io.StringIO()
    console = Console(
        file=output,
        width=max(width, 40),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(_styled_headline(result), soft_wrap=True)
    console.print()
    _print_quality(console, result)
    _print_targets(console, result)
    _print_operators(console, result)
    console.print(Text(f"{views.stages_sentence(result)} edgepack {result.edgepack_version}."))
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def _styled_headline(result: BuildResult) -> Text:
    text = Text(units.printable(views.headline(result)), style="bold")
    text.highlight_words(["PASS"], "green")
    text.highlight_words(["FAIL", "A BASELINE WINS"], "red")
    return text


def _print_quality(console: Console, result: BuildResult) -> None:
    facts = result.data
    console.print(
        Text(
            units.printable(
                f"{result.name}: {facts.users:,} users, {facts.items:,} items, {facts.events:,} events; "
                f"{facts.test_users:,} test users ({facts.split}). {result.protocol}"
            )
        )
    )
    console.print(_table("Ranking quality", views.quality_header(result), views.quality_rows(result)))
    if recipes := views.recipe_rows(result):
        console.print(_table("What each recipe keeps", views.recipe_header(result), recipes))
    console.print(Text(f"Brackets are 95 % intervals. {views.noise_floor_sentence(result)}"))
    console.print()


def _print_targets(console: Console, result: BuildResult) -> None:
    lines = [views.target_line(target, result.gate_metric) for target in result.targets]
    title = f"Targets (drop is the relative loss of {units.metric_words(result.gate_metric)})"
    _print_lines(console, title, lines)
    for target in result.targets:
        if target.chosen is None:
            console.print(Text(units.printable(f"{target.target} has no bundle: {target.why}"), style="red"))
    for one in views.dropped_groups(result):
        reason = f"Dropped {one.candidate} ({one.runtime}): {one.reason} [{one.targets}]"
        console.print(Text(units.printable(reason), style="dim"))
    for sentence in views.too_large(result):
        console.print(Text(units.printable(f"Too large: {sentence}"), style="yellow"))
    console.print()


def _print_lines(console: Console, title: str, lines: list[views.TargetLine]) -> None:
    console.print(Text(f"{title}\n", style="bold"))
    for line in lines:
        one = views.TargetLine(*map(units.printable, line))
        console.print(Text.assemble((one.target, "bold"), f"  {one.candidate}  ", _styled(one.verdict)))
        counted = "" if one.instructions == units.NOT_MEASURED else f"{one.instructions}, "
        figures = f"{one.model}, download {one.download}, {counted}drop {one.drop}, overlap {one.overlap}"
        for text in (figures, f"latency {one.latency}"):
            console.print(Padding(Text(text), (0, 0, 0, 4)))


def _print_operators(console: Console, result: BuildResult) -> None:
    for one in operators.counted(result):
        heading = units.printable(f"Most expensive operators on {operators.heading(one)}")
        if one.attribution.failure:
            console.print(Text(units.printable(f"{heading}: not counted. {one.attribution.failure}")))
        else:
            console.print(
                _table(heading, operators.HEADER, operators.rows(one.attribution, operators.TOP_IN_TEXT))
            )
        for sentence in one.attribution.slow:
            console.print(Padding(Text(units.printable(f"slow: {sentence}")), (0, 0, 0, 1)))
        console.print()


def _table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    cells = [[units.printable(cell) for cell in row] for row in rows]
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    # An empty column (mostly the notes) would only take room.
    kept = [(place, name) for place, name in enumerate(header) if any(row[place] for row in cells)]
    for _, name in kept:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(_styled(row[place]) for place, _ in kept))
    return table


def _styled(cell: str) -> Text:
    return Text(cell, style=_STYLES.get(cell.partition(":")[0], ""))
