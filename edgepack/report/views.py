"""What every report says, before it is laid out: the headline, the tables' cells, the nearest candidate."""

from typing import NamedTuple

from edgepack.report import units
from edgepack.results import (
    BuildResult,
    Candidate,
    Dropped,
    Estimate,
    ModelRow,
    Number,
    TargetResult,
    Verdict,
)


class TargetLine(NamedTuple):
    """One target in one line, every cell ready to be read."""

    target: str
    candidate: str
    model: str
    download: str
    instructions: str
    latency: str
    drop: str
    overlap: str
    verdict: str


TARGET_HEADER = TargetLine(
    "target",
    "candidate",
    "model",
    "download",
    "instructions",
    "latency of one answer",
    "drop",
    "overlap",
    "verdict",
)


class DroppedGroup(NamedTuple):
    """A candidate that was dropped in one runtime, with all the targets that lost it."""

    candidate: str
    runtime: str
    reason: str
    targets: str


def chosen_candidate(target: TargetResult) -> Candidate | None:
    """Return the candidate that is in the bundle, or None if none passed."""
    return next((one for one in target.candidates if one.artifact.sha256 == target.chosen), None)


def shown_candidate(target: TargetResult) -> Candidate | None:
    """Return the chosen candidate or, where none passed, the one that came nearest to its budget.

    Nearest is fewest limits not met, then the smallest sum of the shares by which they are exceeded.
    """
    if (chosen := chosen_candidate(target)) is not None:
        return chosen
    return min(target.candidates, key=_distance, default=None)


def _distance(candidate: Candidate) -> tuple[int, float, int]:
    broken = [verdict for verdict in candidate.verdicts if verdict.status != "within"]
    excess = sum(max(0.0, (used_share(verdict) or 1.0) - 1.0) for verdict in broken)
    return len(broken), excess, candidate.download_bytes


def used_share(verdict: Verdict) -> float | None:
    """Return which share of a limit is used up: 1 is at the limit, above is over, None is unknown.

    A drop's margin is in the metric's own share and an overlap's counts against the disagreement that
    the limit leaves, so that all limits read alike.
    """
    if verdict.margin is None:
        return None
    scale = 1.0
    if verdict.limit.startswith(("drop of ", "group drop of ")):
        scale = verdict.allowed
    elif verdict.limit.startswith("overlap"):
        scale = 1.0 - verdict.allowed
    return 1.0 - verdict.margin / scale if scale else None


def cost(candidate: Candidate) -> Number | None:
    """Return what one answer costs: instructions where they were counted, else the median latency."""
    instructions = candidate.measurement.get("instructions")
    if instructions is not None and instructions.value is not None:
        return instructions
    return candidate.measurement.get("latency_p50_ms")


def candidate_name(candidate: Candidate) -> str:
    """Return recipe and format, the two words that name a candidate."""
    return f"{candidate.artifact.recipe} {candidate.artifact.format}"


def verdict_words(verdicts: tuple[Verdict, ...]) -> str:
    """Return "within", or each limit that does not hold after the status that it has."""
    broken = [verdict for verdict in verdicts if verdict.status != "within"]
    if not broken:
        return "within"
    statuses = dict.fromkeys(verdict.status for verdict in broken)
    parts = (
        f"{status}: {', '.join(units.limit_words(one.limit) for one in broken if one.status == status)}"
        for status in statuses
    )
    return "; ".join(parts)


def candidate_line(target: str, candidate: Candidate, gate_metric: str) -> TargetLine:
    """Return one candidate's cells; unknown figures read "not measured"."""
    quality = candidate.quality
    return TargetLine(
        target=target,
        candidate=candidate_name(candidate),
        model=units.size(candidate.artifact.model_bytes),
        download=units.size(candidate.download_bytes),
        instructions=units.number(candidate.measurement.get("instructions")),
        latency=units.with_error(candidate.measurement.get("latency_p50_ms")),
        drop=units.drop(quality.drops.get(gate_metric) if quality else None),
        overlap=f"{quality.overlap_at_10:.3f}" if quality else units.NOT_MEASURED,
        verdict=verdict_words(candidate.verdicts),
    )


def target_line(target: TargetResult, gate_metric: str) -> TargetLine:
    """Return the line of the chosen candidate, or of the nearest one with "no bundle" in its verdict."""
    shown = shown_candidate(target)
    if shown is None:
        unknown = TargetLine(*["-"] * len(TARGET_HEADER))
        return unknown._replace(target=target.target, verdict="no candidate could be judged")
    line = candidate_line(target.target, shown, gate_metric)
    if target.chosen is None:
        return line._replace(verdict=f"no bundle; {line.verdict}")
    return line


def metric_names(result: BuildResult) -> list[str]:
    """Return the metrics of the quality table, the gate's first.

    One that says what another says already is left out: with one target a user, recall is the hit rate.
    """
    seen = dict.fromkeys(name for row in result.rows for name in row.metrics)
    values = {tuple(row.metrics.get(name) for row in result.rows): name for name in reversed(seen)}
    told = [name for name in seen if name in values.values() or name == result.gate_metric]
    return sorted(told, key=lambda name: name != result.gate_metric)


def quality_header(result: BuildResult) -> tuple[str, ...]:
    """Return the quality table's column names."""
    return ("model", *_metric_headings(result), "note")


def quality_rows(result: BuildResult) -> list[tuple[str, ...]]:
    """Return the quality table: the float model and the baselines, with their intervals."""
    return [(row.name, *_metric_cells(result, row), row.note) for row in result.rows if row.kind != "recipe"]


def recipe_header(result: BuildResult) -> tuple[str, ...]:
    """Return the recipe table's column names."""
    return ("recipe", *_metric_headings(result), "overlap", "file", "deflated", "zeros", "note")


def recipe_rows(result: BuildResult) -> list[tuple[str, ...]]:
    """Return float | PTQ | QAT | prune + QAT: quality, overlap@10, raw and deflated size, share of zeros."""
    return [
        (
            row.name,
            *_metric_cells(result, row),
            f"{row.overlap_at_10:.3f}" if row.overlap_at_10 is not None else units.NOT_MEASURED,
            units.quantity("model_bytes", row.model_bytes),
            units.quantity("deflate_bytes", row.deflate_bytes),
            units.percent(row.zero_share_min) if row.zero_share_min is not None else "not pruned",
            row.note,
        )
        for row in result.rows
        if row.kind == "recipe"
    ]


def _metric_headings(result: BuildResult) -> list[str]:
    return [units.metric_words(name) for name in metric_names(result)]


def _metric_cells(result: BuildResult, row: ModelRow) -> list[str]:
    missing = "not run" if row.note else units.NOT_MEASURED
    return [
        units.estimate(row.metrics[name]) if name in row.metrics else missing for name in metric_names(result)
    ]


def dropped_groups(result: BuildResult) -> list[DroppedGroup]:
    """Return every dropped candidate once, with its reason and the targets that lost it."""
    losers: dict[Dropped, list[str]] = {}
    for target in result.targets:
        for dropped in target.dropped:
            losers.setdefault(dropped, []).append(target.target)
    return [
        DroppedGroup(f"{one.recipe} {one.format}", one.runtime, one.reason, ", ".join(targets))
        for one, targets in losers.items()
    ]


def too_large(result: BuildResult) -> list[str]:
    """Return a sentence for each table that a candidate stores in more bytes than its format promises."""
    files = {one.artifact.sha256: one.artifact for target in result.targets for one in target.candidates}
    return [
        f"{one.recipe} {one.format}: {sentence}" for one in files.values() for sentence in one.broken_promises
    ]


def headline(result: BuildResult) -> str:
    """Return the first line of every report: do all targets pass, and does a baseline win."""
    return f"{_targets_sentence(result)} {_baseline_sentence(result)}"


def _targets_sentence(result: BuildResult) -> str:
    total = len(result.targets)
    if not total:
        return "FAIL: no target was built."
    missing = [target.target for target in result.targets if target.chosen is None]
    if not missing:
        subject = "the one target has" if total == 1 else f"all {total} targets have"
        return f"PASS: {subject} a bundle within budget."
    done = total - len(missing)
    return f"FAIL: {done} of {total} targets have a bundle within budget, not {_listed(missing)}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def float_row(result: BuildResult) -> ModelRow | None:
    """Return the row of the float model, that everything is held against."""
    return next((row for row in result.rows if row.kind == "model"), None)


def _baseline_sentence(result: BuildResult) -> str:
    metric = units.metric_words(result.gate_metric)
    model = float_row(result)
    own = model.metrics.get(result.gate_metric) if model else None
    best = _best_baseline(result)
    if model is None or own is None or best is None:
        return f"Whether a baseline wins on {metric} is not measured."
    name, value = best[0], best[1].value
    figures = f"{name} {value:.4f}, {model.name} {own.value:.4f}"
    if value > own.value:
        return f"A BASELINE WINS over the float model on {metric}: {figures}."
    if value == own.value:
        return f"A baseline equals the float model on {metric}: {figures}."
    return f"No baseline wins over the float model on {metric}: the best is {figures}."


def _best_baseline(result: BuildResult) -> tuple[str, Estimate] | None:
    scored = [
        (row.name, row.metrics[result.gate_metric])
        for row in result.rows
        if row.kind == "baseline" and result.gate_metric in row.metrics
    ]
    return max(scored, key=lambda pair: pair[1].value, default=None)


def noise_floor_sentence(result: BuildResult) -> str:
    """Return how far two equally good float models agree, which bounds what an overlap can show."""
    floor = result.noise_floor_overlap_at_10
    if floor is None:
        return "Noise floor: not measured (no second float model was trained)."
    return f"Noise floor: two float models that differ only in their seed have an overlap@10 of {floor:.3f}."


def stages_sentence(result: BuildResult) -> str:
    """Return how much of the build was done anew and how long that took."""
    return (
        f"{len(result.stages_made)} stages made, {len(result.stages_kept)} taken from the store, "
        f"in {units.duration(result.wall_s)}."
    )


class ByteParts(NamedTuple):
    """Where one candidate's bytes are: the raw file in two parts, and the download in two."""

    table_bytes: int
    network_bytes: int
    packed_model_bytes: int
    rest_bytes: int
    rest: str


def byte_parts(target: TargetResult, candidate: Candidate) -> ByteParts:
    """Return the parts: browsers fetch with brotli, application packages are deflated.

    The rest of the download is the vocabulary, and on the web the runtime too.
    """
    on_web = target.platform.startswith("web")
    artifact = candidate.artifact
    packed = artifact.brotli_bytes if on_web else artifact.deflate_bytes
    return ByteParts(
        table_bytes=artifact.table_bytes,
        network_bytes=artifact.model_bytes - artifact.table_bytes,
        packed_model_bytes=packed,
        rest_bytes=candidate.download_bytes - packed,
        rest="vocabulary and runtime" if on_web else "vocabulary",
    )


def number_names(target: TargetResult) -> list[str]:
    """Return the names of all figures that any candidate of this target has, in order of appearance."""
    return list(dict.fromkeys(number.name for one in target.candidates for number in one.measurement.numbers))


def curve_series(result: BuildResult) -> dict[str, list[float]]:
    """Return the training curve's series worth drawing: losses and ranking metrics, the gate's first."""
    names = dict.fromkeys(name for record in result.curve for name in record)
    drawn = [name for name in names if "loss" in name or "@" in name]
    drawn.sort(key=lambda name: (result.gate_metric not in name, "loss" not in name))
    whole = [name for name in drawn if all(name in record for record in result.curve)]
    return {name: [record[name] for record in result.curve] for name in whole}
