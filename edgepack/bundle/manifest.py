"""What a bundle says of itself: everything exact in `manifest.json`, wall-clock figures in `run.json`.

The content hash is the SHA-256 of `manifest.json`, which names the SHA-256 of every other file except
`run.json`; so the same inputs give the same hash on any day.
"""

import hashlib

import msgspec

from edgepack.profiles import Budget, Platform
from edgepack.results import Artifact, Number, Quality, Verdict
from edgepack.rows import QueryHashing

MANIFEST = "manifest.json"
RUN = "run.json"
SCHEMA_VERSION = 1


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """Name, dtype and static shape of a model input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Contract(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an app talks to the model; the README's serving contract holds for the rest.

    Histories are right-aligned, 0 is padding, items are 1..`item_count`; score index 0 is never
    recommended, equal scores order by lower index, unknown ids are dropped before encoding. `query` says
    how a search model's second input is made of text.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    history_length: int
    item_count: int
    filter_seen: bool
    query: QueryHashing | None = None

    @property
    def query_length(self) -> int:
        """Q, the n-grams of a search text; 0 when the model takes none."""
        return self.query.length if self.query else 0


class PinnedRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime that the figures hold for; `files` maps its files to their SHA-256."""

    name: str
    version: str
    licence: str
    files: dict[str, str] = {}


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One member of the bundle."""

    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The exact part: one model, what it needs, what it costs, and how it was judged."""

    schema_version: int = SCHEMA_VERSION
    name: str
    edgepack_version: str
    target: str
    platform: Platform
    model_file: str
    artifact: Artifact
    recipe: dict[str, bool | int | float | str]
    contract: Contract
    runtime: PinnedRuntime
    download_bytes: int
    figures: tuple[Number, ...]
    quality: Quality
    budget: Budget
    verdicts: tuple[Verdict, ...]
    proof: str
    why: str
    files: dict[str, FileEntry] = {}


class ParityRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the ten best items of each user in one runtime agree with the reference's.

    `overlap_at_10` and `top_1_agreement` are mean shares (0..1); `largest_difference` of the scores and
    `kendall_tau` (mean) are over the items that both lists hold. All are None when `note` says why.
    """

    runtime: str
    overlap_at_10: float | None = None
    top_1_agreement: float | None = None
    largest_difference: float | None = None
    kendall_tau: float | None = None
    note: str = ""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The same `users` in every runtime of the bundle, each held against the `reference`."""

    reference: str
    users: int
    rows: tuple[ParityRow, ...]


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The part that differs from run to run: dates, wall-clock figures and the verdicts resting on them.

    `certificate` as well: the last digits of scores depend on the machine.
    """

    finished_at: str
    host: str
    figures: tuple[Number, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    certificate: Certificate | None = None


class GoldenCase(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A history (item indices, newest last, unpadded) and what the target's own runtime returned for it.

    `query`: the ids of a search model's second input, without padding.
    """

    history: tuple[int, ...]
    top_k: tuple[int, ...]
    scores: tuple[float, ...]
    query: tuple[int, ...] = ()


class Goldens(msgspec.Struct, frozen=True, kw_only=True):
    """`cases` must come back exactly; `random` at overlap@k >= 0.99 on average.

    A case's score gap at each of its places is more than four times `largest_difference`, the largest
    score difference seen between runtimes; the empty history is always among the cases.
    """

    k: int
    runtime: str
    largest_difference: float
    cases: tuple[GoldenCase, ...]
    random: tuple[GoldenCase, ...]


def encode(value: msgspec.Struct) -> bytes:
    """Return a struct as indented JSON with sorted keys: equal values give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1) + b"\n"


def content_hash(manifest: Manifest) -> str:
    """Return the SHA-256 that stands for everything in the bundle that is exact."""
    return hashlib.sha256(encode(manifest)).hexdigest()
