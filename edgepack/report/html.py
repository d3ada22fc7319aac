"""One self-contained page: no script and no request, so it opens offline and can be sent by mail."""

from edgepack.errors import ToolError
from edgepack.report import controlled, examples, groups, operators, sensitivity, units, views
from edgepack.results import BuildResult, Estimate


def render(result: BuildResult) -> str:
    """Return the whole page as HTML; every text is escaped.

    Raises ToolError when jinja2, which lays the page out, is not installed.
    """
    try:
        import jinja2

        from edgepack.report import plots
    except ImportError as error:
        raise ToolError(
            "the HTML report",
            f"the package {error.name} is not installed",
            remedy="Install it with `pip install 'edgepack[report]'`, or take --json or Markdown.",
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgepack.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rooms = {"units": units, "views": views, "plots": plots, "operators": operators}
    environment.globals.update(rooms, groups=groups, examples=examples)
    environment.globals.update(sensitivity=sensitivity, controlled=controlled)
    page = environment.get_template("report.html.j2").render(
        result=result,
        gate=result.gate_metric,
        reference=_reference(result),
        bounds=_bounds(result, ("model", "baseline")),
        recipe_bounds=_bounds(result, ("recipe",)),
        largest_bytes=_largest_bytes(result),
    )
    return str(page)


def _reference(result: BuildResult) -> Estimate | None:
    row = views.float_row(result)
    return row.metrics.get(result.gate_metric) if row else None


def _bounds(result: BuildResult, kinds: tuple[str, ...]) -> tuple[float, float]:
    rows = [row for row in result.rows if row.kind in kinds]
    means = [row.metrics[result.gate_metric] for row in rows if result.gate_metric in row.metrics]
    # An interval may be missing; 0 is a bound like any other.
    ends = [end for mean in means for end in (mean.low, mean.value, mean.high) if end is not None]
    # Baselines lie far apart and are drawn from 0; recipes differ in the third digit.
    lowest = 0.0 if "baseline" in kinds else min(ends, default=0.0)
    return lowest, max(ends, default=1.0)


def _largest_bytes(result: BuildResult) -> int:
    shown = [views.chosen_candidate(target) for target in result.targets]
    return max((max(one.download_bytes, one.artifact.model_bytes) for one in shown if one), default=1)
