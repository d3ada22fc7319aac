"""What the stages hand to each other and to the reader: every number with its unit and its provenance.

All types are frozen and keyword-only; `msgspec` writes and reads them as JSON.
"""

import math
from typing import Literal

import msgspec

Provenance = Literal["measured", "emulated", "modelled", "computed"]
"""How a number came to be. `measured`: a desktop browser or a real device. `emulated`: exact counts
under emulation, or a throttled browser. `modelled`: milliseconds derived from counts. `computed`:
read off a file or derived from outputs (bytes, ranking metrics)."""

Status = Literal["within", "over", "not measured", "undecided"]


class Number(msgspec.Struct, frozen=True, kw_only=True):
    """One figure. The unit ends its name (`instructions`, `latency_p50_ms`, `peak_memory_bytes`).

    `value` is None when it could not be measured; `source` then says why, else what produced it.
    `exact` figures repeat to the unit on every run and may decide a choice; others never do.
    `low` and `high` are the interval of a figure that has one, in its own unit, and `error` says what the
    interval is and how it was found; every latency has all three. A modelled latency outside of what its
    model was calibrated on has an interval and no `value`.
    """

    name: str
    value: float | int | None
    provenance: Provenance
    source: str
    exact: bool
    low: float | None = None
    high: float | None = None
    error: str = ""

    @property
    def spelled(self) -> str:
        """The figure in full, without its unit: "1,234", "1.5 [1.2, 1.9]", "1.2 to 1.9", "not measured"."""
        return spelled(self.value, self.low, self.high)


def spelled(value: float | None, low: float | None, high: float | None) -> str:
    """Return a figure in full with its interval; an interval alone when there is no value."""
    if low is None or high is None:
        return "not measured" if value is None else f"{value:,}"
    return f"{low:,} to {high:,}" if value is None else f"{value:,} [{low:,}, {high:,}]"


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over users with its two-sided 95 % bootstrap interval; `low`/`high` None if not computed."""

    value: float
    low: float | None = None
    high: float | None = None


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """Relative loss of a metric against the float model on the same users; 0.01 is one per cent.

    `upper` is the one-sided 95 % bound of the paired bootstrap (what the gate reads);
    `low`/`high` the two-sided 95 % interval (what a reader wants).
    """

    metric: str
    value: float
    upper: float
    low: float
    high: float


class GroupQuality(msgspec.Struct, frozen=True, kw_only=True):
    """What one group of the test users loses against the float model, paired, with intervals.

    `by` says what the users are grouped by ("history length"), `group` which of its groups this is.
    `served` counts, for each metric, the users for whom the float model scores above 0: only they can lose.
    A metric that is 0 for all of them has no drop.
    """

    by: str
    group: str
    users: int
    served: dict[str, int]
    drops: dict[str, Drop]
    overlap_at_10: Estimate


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Ranking quality of one artifact under one runtime, on the whole catalogue."""

    metrics: dict[str, Estimate]
    drops: dict[str, Drop]
    overlap_at_10: float
    users: int
    runtime: str
    protocol: str
    groups: tuple[GroupQuality, ...] = ()


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One model file. `ops` lists "NAME vVERSION x COUNT"; `table_bytes` is the embedding tables' share.

    `broken_promises` has a sentence for each table that takes more bytes than the format promises.
    """

    recipe: str
    format: str
    file_name: str
    model_bytes: int
    sha256: str
    deflate_bytes: int
    brotli_bytes: int
    table_bytes: int
    ops: tuple[str, ...]
    zero_share: dict[str, float]
    broken_promises: tuple[str, ...] = ()


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one (artifact, target): a flat list of numbers."""

    target: str
    artifact_sha256: str
    numbers: tuple[Number, ...]

    def get(self, name: str) -> Number | None:
        """Return the number called `name`, or None when nobody tried to measure it."""
        return next((number for number in self.numbers if number.name == name), None)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of a budget held against one figure. `margin` is the share of the limit left over.

    `low`, `high` and `error` are those of the figure. An interval that lies across the limit is `undecided`.
    """

    limit: str
    allowed: float | int
    found: float | int | None
    margin: float | None
    status: Status
    provenance: Provenance
    note: str = ""
    low: float | None = None
    high: float | None = None
    error: str = ""


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that was made and may not ship, with the reason."""

    recipe: str
    format: str
    runtime: str
    reason: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact on one target, held against that target's budget.

    `download_bytes` is what a user fetches: model, vocabulary and, on the web, the runtime, each
    compressed. `quality` is None when the artifact failed before it could be ranked with.
    """

    artifact: Artifact
    measurement: Measurement
    quality: Quality | None
    download_bytes: int
    verdicts: tuple[Verdict, ...]

    @property
    def passes(self) -> bool:
        """Whether every limit of the budget holds."""
        return all(verdict.status == "within" for verdict in self.verdicts)


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of a .tflite file, in the file's order.

    `layer` is the layer of the model that it was made for, as far as the file's names tell. `inputs` and
    `outputs` number its tensors, constants left out; `shape` and `dtype` are those of its first output, and
    `static` says whether the file fixes all shapes. `multiplications` is None where it has no such count.
    """

    kind: str
    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    static: bool = True
    multiplications: int | None = None

    @property
    def elements(self) -> int:
        """How many values the first output holds."""
        count: int = math.prod(self.shape)
        return count


class OperatorCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one inference costs more with this operator than with those before it alone.

    Misses depend on where the runtime lays tensors, which each further operator moves: single ones may come
    out below 0 when it saves the others some.
    """

    operator: Operator
    in_xnnpack: bool
    instructions: int
    l1d_misses: int
    l2_misses: int


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model's cost on one core comes from: exact counts of growing prefixes of its graph, subtracted.

    `instructions`, `l1d_misses` and `l2_misses` are those of the whole model, counted alone in a process;
    what the operators do not add up to is the runtime's and the rest. `slow` says what is known to be slow.
    `failure` says why there are no operators, "" when there are.
    """

    core: str
    source: str
    operators: tuple[OperatorCost, ...]
    instructions: int
    l1d_misses: int
    l2_misses: int
    slow: tuple[str, ...] = ()
    failure: str = ""
    provenance: Provenance = "emulated"

    def rest(self, figure: str) -> int:
        """Return what is left of `figure` (`instructions` …) when all operators are taken off."""
        explained: int = sum(getattr(one, figure) for one in self.operators)
        whole: int = getattr(self, figure)
        return whole - explained


class UnitLoss(msgspec.Struct, frozen=True, kw_only=True):
    """What the float model loses when one layer, or one group of a table's rows, alone is compressed.

    `weights` counts the weights of `unit`.
    """

    unit: str
    weights: int
    drop: Drop
    overlap_at_10: Estimate


class Sensitivity(msgspec.Struct, frozen=True, kw_only=True):
    """Every unit rounded to `bits` alone, the worst first, on validation users; activations stay float."""

    bits: int
    users: int
    units: tuple[UnitLoss, ...]


class ControlledUnit(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, or a band of the table's rows, as accuracy control left it.

    `precision` says in words which values it may take, `deflate_bytes` what its levels take in a download,
    and `most_deflate_bytes` what they take at 8 bits. `drop` and `overlap_at_10` are what it alone lost on
    the coarsest precision that was tried; None when nothing coarser was.
    """

    unit: str
    precision: str
    deflate_bytes: int
    most_deflate_bytes: int
    drop: float | None
    overlap_at_10: float | None


class Controlled(msgspec.Struct, frozen=True, kw_only=True):
    """What accuracy control found for a recipe before its training, on `users` validation users.

    `within` says whether `drop` and `overlap_at_10` of all units together hold the recipe's tolerance, `why`
    how the search ended after `trials`.
    """

    recipe: str
    users: int
    trials: int
    within: bool
    why: str
    drop: float
    overlap_at_10: float
    units: tuple[ControlledUnit, ...]


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One test user before and after: the ids of items, oldest first in `history`, best first in the lists.

    `number` is the user's place among the examples and says nothing of who it is; `why` is the rule that
    chose this user. Examples stand in reports and in no bundle.
    """

    number: int
    why: str
    history: tuple[str, ...]
    targets: tuple[str, ...]
    before: tuple[str, ...]
    after: tuple[str, ...]
    overlap_at_10: float


class TargetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one target. `chosen` is the sha256 of the artifact in `bundle`, None if none passed.

    `why` is one sentence: why that one, or which limit stopped each. `proof` says how the host's
    quality figures were shown to hold on the target's own runtime. `attribution` says which operators of the
    chosen artifact cost what; None where they cannot be told apart. `examples` are users with its lists.
    """

    target: str
    description: str
    platform: str
    runtime: str
    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...]
    chosen: str | None
    why: str
    proof: str
    bundle: str | None = None
    content_hash: str | None = None
    attribution: Attribution | None = None
    examples: tuple[Example, ...] = ()


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the quality table: a model or a baseline on the test users; `note` if it did not run."""

    name: str
    kind: Literal["model", "baseline", "recipe"]
    metrics: dict[str, Estimate]
    overlap_at_10: float | None = None
    model_bytes: int | None = None
    deflate_bytes: int | None = None
    zero_share_min: float | None = None
    note: str = ""
    groups: tuple[GroupQuality, ...] = ()


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt from: counts after cleaning, what cleaning dropped and why, the split."""

    source: str
    sha256: str
    users: int
    items: int
    events: int
    dropped: dict[str, int]
    split: str
    test_users: int
    cold_test_targets: int
    licence: str = ""


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one build learnt; the reports are views of it.

    `rows` is the quality table (float model, baselines, then float | PTQ | QAT | prune + QAT as TFLite
    int8), `noise_floor_overlap_at_10` the overlap of two float models that differ in their seed.
    `curve` is one record an epoch of the float training. `stages_made` / `stages_kept` tell what this
    run did anew and what it took from the store. `finished_at` is UTC, ISO 8601.
    """

    edgepack_version: str
    name: str
    data: DataFacts
    model: dict[str, bool | int | float | str]
    protocol: str
    rows: tuple[ModelRow, ...]
    noise_floor_overlap_at_10: float | None
    curve: tuple[dict[str, float], ...]
    targets: tuple[TargetResult, ...]
    versions: dict[str, str]
    stages_made: tuple[str, ...]
    stages_kept: tuple[str, ...]
    finished_at: str
    wall_s: float
    gate_metric: str = "ndcg@10"
    sensitivity: tuple[Sensitivity, ...] = ()
    controlled: tuple[Controlled, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether every target got a bundle within its budget."""
        return all(target.chosen is not None for target in self.targets)
