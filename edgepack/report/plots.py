"""Charts as inline SVG: no script, no font, no colour of their own (the page's style sheet gives those)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from edgepack.report import operators, units, views
from edgepack.results import Attribution, BuildResult, Candidate, Estimate, TargetResult, Verdict


class Scale(NamedTuple):
    """A linear map from data (`low`..`high`) to pixels (`start`..`end`)."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        span = self.high - self.low or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)


class Frame(NamedTuple):
    """A plot's outer size and the scales of its inner rectangle, in pixels."""

    width: int
    height: int
    x: Scale
    y: Scale


def tag(name: str, content: str = "", **attributes: float | str) -> Markup:
    """Return one SVG element, its text escaped; `class_` names `class`, `stroke_width` `stroke-width`."""
    pairs = "".join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else value
        )
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup(pairs), escape(content))  # noqa: S704  # escaped above


def _join(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts)


def figure(width: int, height: int, title: str, description: str, parts: Sequence[Markup]) -> Markup:
    """Return an SVG picture with its name and description for readers who do not see it."""
    content = _join([tag("title", title), tag("desc", description), *parts])
    box = f"0 0 {width} {height}"
    return tag("svg", content, viewBox=box, role="img", aria_label=title, class_="plot", width=width)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round values between `low` and `high`, in steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def padded(values: Sequence[float], share: float) -> tuple[float, float]:
    """Return the range of `values`, widened at both ends by a share of itself."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or share
    return low - room, high + room


def candidates(result: BuildResult, target: TargetResult, width: int) -> Markup:
    """Return size × quality × cost of every ranked candidate, the chosen one ringed, the limits as lines.

    Numbers in the points are the candidates' places in `target.candidates`, from 1.
    """
    gate = result.gate_metric
    ranked = [
        (place, one, one.quality.metrics[gate])
        for place, one in enumerate(target.candidates, 1)
        if one.quality and gate in one.quality.metrics
    ]
    if not ranked:
        return Markup("")
    limit = _limit(target, "download_bytes")
    lines = quality_lines(result, target)
    frame = _frame(width, ranked, limit, [value for _, value in lines])
    largest = max((_cost(one) or 0.0 for _, one, _ in ranked), default=0.0)
    # Large points first, the chosen one last, so that neither hides another.
    ranked.sort(key=lambda row: (row[1].artifact.sha256 == target.chosen, -(_cost(row[1]) or 0.0)))
    parts = [
        *_axes(frame, "download", units.metric_words(gate)),
        *_limit_line(frame, limit),
        *_reference_lines(frame, lines),
        *(_whisker(frame, one, value) for _, one, value in ranked),
        *(_point(frame, target, row, largest) for row in ranked),
    ]
    title = f"Candidates of {target.target}: download against {units.metric_words(gate)}"
    return figure(width, frame.height, title, "The table below holds the same figures.", parts)


_Ranked = tuple[int, Candidate, Estimate]


def _limit(target: TargetResult, name: str) -> float | None:
    return next((v.allowed for one in target.candidates for v in one.verdicts if v.limit == name), None)


def quality_lines(result: BuildResult, target: TargetResult) -> list[tuple[str, float]]:
    """Return what candidates are held against: the float model's gate metric, and the least allowed.

    Each comes after its style, `reference` or `limit`.
    """
    model = views.float_row(result)
    if model is None or result.gate_metric not in model.metrics:
        return []
    value = model.metrics[result.gate_metric].value
    allowed_drop = _limit(target, f"drop of {result.gate_metric}")
    lines = [("reference", value)]
    return lines if allowed_drop is None else [*lines, ("limit", value * (1.0 - allowed_drop))]


def _frame(width: int, ranked: list[_Ranked], limit: float | None, lines: list[float]) -> Frame:
    sizes = [float(one.download_bytes) for _, one, _ in ranked]
    near = [limit] if limit is not None and limit <= 1.6 * max(sizes) else []
    bounds = [
        end for _, _, value in ranked for end in (value.low, value.value, value.high) if end is not None
    ]
    height = 320
    return Frame(
        width=width,
        height=height,
        x=Scale(*padded([*sizes, *near], 0.1), 58, width - 14),
        y=Scale(*padded([*bounds, *lines], 0.1), height - 48, 28),
    )


def _axes(frame: Frame, x_label: str, y_label: str) -> list[Markup]:
    x, y = frame.x, frame.y
    parts = []
    for value in ticks(y.low, y.high, 5):
        parts.append(tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid"))
        parts.append(
            tag("text", f"{value:.3f}", x=x.start - 8, y=y(value) + 4, class_="tick", text_anchor="end")
        )
    for value in ticks(x.low, x.high, max(2, frame.width // 130)):
        parts.append(tag("line", x1=x(value), x2=x(value), y1=y.start, y2=y.start + 5, class_="axis"))
        parts.append(
            tag("text", units.size(value), x=x(value), y=y.start + 19, class_="tick", text_anchor="middle")
        )
    parts.append(tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="axis"))
    parts.append(tag("text", x_label, x=x.end, y=y.start + 38, class_="label", text_anchor="end"))
    parts.append(tag("text", y_label, x=2, y=12, class_="label"))
    return parts


def _limit_line(frame: Frame, limit: float | None) -> list[Markup]:
    if limit is None:
        return []
    x, y = frame.x, frame.y
    words = f"limit {units.size(limit)}"
    if limit > x.high:
        return [tag("text", f"{words} →", x=x.end, y=y.end - 6, class_="limit-label", text_anchor="end")]
    return [
        tag("line", x1=x(limit), x2=x(limit), y1=y.end, y2=y.start, class_="limit"),
        tag("text", words, x=x(limit) - 6, y=y.end - 6, class_="limit-label", text_anchor="end"),
    ]


def _reference_lines(frame: Frame, lines: list[tuple[str, float]]) -> list[Markup]:
    x, y = frame.x, frame.y
    return [
        tag("line", x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_=style) for style, value in lines
    ]


def _cost(candidate: Candidate) -> float | None:
    figure = views.cost(candidate)
    return figure.value if figure else None


def _whisker(frame: Frame, candidate: Candidate, value: Estimate) -> Markup:
    if value.low is None or value.high is None:
        return Markup("")
    x = frame.x(candidate.download_bytes)
    return tag("line", x1=x, x2=x, y1=frame.y(value.low), y2=frame.y(value.high), class_="whisker")


def _point(frame: Frame, target: TargetResult, row: _Ranked, largest: float) -> Markup:
    place, one, value = row
    cost = _cost(one)
    radius = 7.0 + 6.0 * math.sqrt(cost / largest) if cost and largest else 8.0
    x, y = frame.x(one.download_bytes), frame.y(value.value)
    chosen = one.artifact.sha256 == target.chosen
    style = "pass" if one.passes else "fail"
    words = (
        f"{place}: {views.candidate_name(one)}, download {units.size(one.download_bytes)}, "
        f"ranking quality {units.estimate(value)}, "
        f"{units.with_error(views.cost(one))}, {views.verdict_words(one.verdicts)}"
    )
    parts = [tag("title", words)]
    if chosen:
        parts.append(tag("circle", cx=x, cy=y, r=radius + 4.0, class_="ring"))
    unknown = "" if cost else " unknown"
    parts.append(tag("circle", cx=x, cy=y, r=radius, class_=f"point {style}{unknown}"))
    parts.append(tag("text", str(place), x=x, y=y + 4, class_=f"place {style}", text_anchor="middle"))
    return tag("g", _join(parts))


def interval(value: Estimate | None, reference: Estimate | None, bounds: tuple[float, float]) -> Markup:
    """Return a mean as a dot on its 95 % interval, within `bounds`; the upright line is `reference`."""
    if value is None:
        return Markup("")
    x = Scale(*bounds, 6, 174)
    parts = [tag("line", x1=4, x2=176, y1=9, y2=9, class_="grid")]
    if reference is not None and bounds[0] <= reference.value <= bounds[1]:
        parts.append(
            tag("line", x1=x(reference.value), x2=x(reference.value), y1=0, y2=18, class_="reference")
        )
    if value.low is not None and value.high is not None:
        parts.append(tag("line", x1=x(value.low), x2=x(value.high), y1=9, y2=9, class_="interval"))
    parts.append(tag("circle", cx=x(value.value), cy=9, r=3.5, class_="dot"))
    return figure(180, 18, units.estimate(value), "A dot on its 95 % interval.", parts)


def limit_bar(verdict: Verdict) -> Markup:
    """Return how much of a limit is used up; the limit stands at the upright line."""
    used = views.used_share(verdict)
    if used is None:
        return Markup("")
    limit_at = 84.0
    end = min(max(used, 0.0) * limit_at, 108.0)
    style = "within" if verdict.status == "within" else "over"
    parts = [
        tag("rect", x=0, y=5, width=108, height=8, rx=4, class_="track"),
        tag("rect", x=0, y=5, width=max(end, 2.0), height=8, rx=4, class_=f"fill {style}"),
        tag("line", x1=limit_at, x2=limit_at, y1=1, y2=17, class_="mark"),
    ]
    return figure(110, 18, f"{units.percent(used, 0)} of the limit used", "A bar up to the limit.", parts)


def byte_bar(parts: Sequence[tuple[str, int]], highest: int) -> Markup:
    """Return named byte counts as one stacked bar, from 0 to `highest` bytes; names are style classes."""
    x = Scale(0, highest, 0, 300)
    rectangles, done = [], 0
    for style, part_bytes in parts:
        start, end = x(done), x(done + part_bytes)
        # A hair of background parts the neighbours; the smallest part stays visible.
        rectangles.append(
            tag("rect", x=start, y=2, width=max(end - start - 1.5, 1.0), height=14, class_=style)
        )
        done += part_bytes
    words = ", ".join(f"{style} {units.size(part_bytes)}" for style, part_bytes in parts)
    return figure(300, 18, words, "Parts of a whole, laid end to end.", rectangles)


def flame(attribution: Attribution, width: int) -> Markup:
    """Return where the instructions go: the whole on top, below it groups of layers, layers, operators."""
    parts: list[Markup] = []
    _stack(parts, operators.frames(attribution), 0.0, float(width), 0)
    title = f"Instructions of one answer on {attribution.core}, by layers and operators"
    description = "Width is instructions. The table beside it holds the most expensive operators."
    return figure(width, 4 * _FLAME_ROW, title, description, parts)


_FLAME_ROW = 34
_LETTER = 6.6
"""About the width of a letter in pixels: a name that does not fit into its box is left out."""


def _stack(parts: list[Markup], frame: operators.Frame, start: float, end: float, depth: int) -> None:
    if end - start < 0.5:
        return
    y, height = depth * _FLAME_ROW, _FLAME_ROW - 2
    style = frame.style.partition(" ")
    box = [
        tag("title", frame.words),
        tag(
            "rect",
            x=start,
            y=y,
            width=max(end - start - 1, 0.5),
            height=height,
            rx=3,
            class_=f"flame {style[0]}",
        ),
    ]
    if style[2]:
        box.append(
            tag(
                "rect", x=start, y=y + height - 5, width=max(end - start - 1, 0.5), height=5, class_="outside"
            )
        )
    room = int((end - start - 8) / _LETTER)
    name = frame.name if len(frame.name) <= room else f"{frame.name[: room - 1]}…"
    if room >= 4:
        box.append(tag("text", name, x=start + 5, y=y + 19, class_=f"flame-name {style[0]}"))
    parts.append(tag("g", _join(box)))
    done = start
    for child in frame.children:
        share = child.instructions / frame.instructions * (end - start)
        _stack(parts, child, done, done + share, depth + 1)
        done += share


def curve(name: str, values: Sequence[float]) -> Markup:
    """Return one series of the training curve over its epochs, the last value written at its end."""
    width, height = 430, 210
    x = Scale(1, max(len(values), 2), 48, width - 64)
    y = Scale(*padded(values, 0.08), height - 40, 24)
    points = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in enumerate(values, 1))
    parts = []
    for value in ticks(y.low, y.high, 6):
        parts.append(tag("line", x1=48, x2=width - 64, y1=y(value), y2=y(value), class_="grid"))
        parts.append(tag("text", f"{value:.3g}", x=42, y=y(value) + 4, class_="tick", text_anchor="end"))
    for value in ticks(1, len(values), 5):
        parts.append(
            tag("text", f"{value:.0f}", x=x(value), y=height - 22, class_="tick", text_anchor="middle")
        )
    parts += [
        tag("text", units.metric_words(name), x=2, y=12, class_="label"),
        tag("text", "epoch", x=width - 64, y=height - 5, class_="label", text_anchor="end"),
        tag("polyline", points=points, class_="series"),
        tag("circle", cx=x(len(values)), cy=y(values[-1]), r=4, class_="point pass"),
        tag("text", f"{values[-1]:.4g}", x=x(len(values)) + 9, y=y(values[-1]) + 4, class_="value"),
    ]
    words = f"{units.metric_words(name)} from {values[0]:.4g} to {values[-1]:.4g} in {len(values)} epochs"
    return figure(width, height, words, "One value an epoch.", parts)
