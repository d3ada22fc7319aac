"""What the stages hand to each other and to the reader: every number with its unit and its provenance.

All types are frozen and keyword-only; `msgspec` writes and reads them as JSON.
"""

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
    """

    name: str
    value: float | int | None
    provenance: Provenance
    source: str
    exact: bool


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


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Ranking quality of one artifact under one runtime, on the whole catalogue."""

    metrics: dict[str, Estimate]
    drops: dict[str, Drop]
    overlap_at_10: float
    users: int
    runtime: str
    protocol: str


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One model file. `ops` lists "NAME vVERSION x COUNT"; `table_bytes` is the embedding tables' share."""

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


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known of one (artifact, target): a flat list of numbers."""

    target: str
    artifact_sha256: str
    numbers: tuple[Number, ...]

    def get(self, name: str) -> Number | None:
        """Return the number called `name`, or None when nobody tried to measure it."""
        return next((number for number in self.numbers if number.name == name), None)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of a budget held against one figure. `margin` is the share of the limit left over."""

    limit: str
    allowed: float
    found: float | None
    margin: float | None
    status: Status
    provenance: Provenance
    note: str = ""


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that was made and may not ship, with the reason."""

    recipe: str
    format: str
    runtime: str
    reason: str
