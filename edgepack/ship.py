"""From judged candidates to bundles: choose the cheapest that holds, prove it on the target, pack it."""

import platform
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgepack import __version__
from edgepack.bundle import archive, card, goldens
from edgepack.bundle.archive import Bundle
from edgepack.bundle.manifest import (
    Certificate,
    Contract,
    Manifest,
    PinnedRuntime,
    RunRecord,
    Tensor,
    encode,
)
from edgepack.compress.recipes import Recipe
from edgepack.errors import MeasureError
from edgepack.profiles import Budget, Profile
from edgepack.results import Attribution, Candidate, DataFacts, Dropped, TargetResult, Verdict, spelled
from edgepack.rows import QueryHashing
from edgepack.runtimes.engines import device_engine, host_engine, scores
from edgepack.stages import Place
from edgepack.stages.figures import Proof, artifact_of, prove
from edgepack.store import Kept, source_fingerprint, write_atomic
from edgepack.tools.web_runtimes import PACKAGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GOLDEN_SEED = 29
_LICENCES = {"litert": "Apache-2.0", "tflite-runtime": "Apache-2.0"}


class Contender(NamedTuple):
    """A candidate with the stored artifact it came from."""

    candidate: Candidate
    made: Kept


class Choice(NamedTuple):
    """What ships to a target: None with the reason in `why` when nothing may.

    `contenders` are all that were given, with their last figures.
    """

    contender: Contender | None
    proof: Proof | None
    goldens: bytes
    why: str
    dropped: tuple[Dropped, ...]
    contenders: tuple[Contender, ...]


def runtime_files(profile: Profile) -> list[Path]:
    """Return the runtime's files that a user of this target downloads: those of the web, else none."""
    if profile.platform != "web-wasm":
        return []
    from edgepack.tools.web_runtimes import locate_runtime

    return list(locate_runtime(profile.runtime.name).files.values())


def download_bytes(profile: Profile, model_deflate: int, model_brotli: int, vocabulary: bytes) -> int:
    """Return what a user fetches, compressed as the channel does: brotli on the web, deflate in an APK.

    Model and vocabulary, and on the web the runtime; an app's own build brings the runtime elsewhere.
    """
    if profile.platform != "web-wasm":
        return model_deflate + len(zlib.compress(vocabulary, 9))
    import brotli

    from edgepack.tools.web_runtimes import runtime_bytes

    words = len(brotli.compress(vocabulary, quality=11))
    return model_brotli + words + runtime_bytes(runtime_files(profile))["brotli"]


def wall_clock(verdict: Verdict) -> bool:
    """Whether a verdict rests on a wall clock: it can fail a target, and never changes the choice.

    Modelled milliseconds do not: they follow from exact counts.
    """
    return verdict.limit in ("latency_ms", "load_ms") and verdict.provenance != "modelled"


def choose(
    place: Place,
    split: Kept,
    shipment: "Shipment",
    profile: Profile,
    contenders: Sequence[Contender],
    prefer: str,
    ranked_on_target: Callable[[Contender], Contender],
) -> Choice:
    """Return the cheapest contender whose exact figures hold its budget and hold on the target itself.

    `ranked_on_target` judges a contender again with all users ranked by the target's own engine: the way
    out for one whose answers there are not the host's to the digit, and yet the same lists.
    """
    latest = list(contenders)
    dropped: list[Dropped] = []

    def choice(contender: Contender | None, proof: Proof | None, cases: bytes, why: str) -> Choice:
        return Choice(contender, proof, cases, why, tuple(dropped), tuple(latest))

    for contender in sorted(contenders, key=lambda c: _cost(c.candidate, prefer)):
        if not _holds(contender.candidate):
            continue
        proof = prove(place, split, contender.made, profile, host_engine(profile))
        if proof.failure and proof.overlap_at_10 >= goldens.RANDOM_OVERLAP:
            again = ranked_on_target(contender)
            latest[latest.index(contender)] = contender = again
            proof = _replaced(proof, again, device_engine(profile).name)
        reason = proof.failure
        if not reason:
            try:
                cases = _goldens(place, split, shipment, profile, contender.made, proof)
            except MeasureError as error:
                reason = str(error)
            else:
                why = _why_not_now(contender) or _why(contender, len(contenders), prefer)
                shipped = None if _why_not_now(contender) else contender
                return choice(shipped, proof, cases, why)
        dropped.append(_not_shipped(contender, profile, reason))
    return choice(None, None, b"", _why_none(latest, dropped))


def _holds(candidate: Candidate) -> bool:
    return all(v.status == "within" for v in candidate.verdicts if not wall_clock(v))


def _replaced(proof: Proof, again: Contender, engine: str) -> Proof:
    users = again.candidate.quality.users if again.candidate.quality else 0
    text = f"{proof.text}; all {users} users were therefore ranked by {engine} itself"
    failure = "" if _holds(again.candidate) else f"{text}: {_over(again.candidate)}"
    return msgspec.structs.replace(proof, text=text, failure=failure)


def _over(candidate: Candidate) -> str:
    missed = [v for v in candidate.verdicts if v.status != "within" and not wall_clock(v)]
    return ", ".join(f"{v.limit} {v.status} ({_found(v)})" for v in missed)


def _not_shipped(contender: Contender, profile: Profile, reason: str) -> Dropped:
    return Dropped(
        recipe=contender.candidate.artifact.recipe,
        format=contender.candidate.artifact.format,
        runtime=device_engine(profile).name,
        reason=f"it does not hold on the target: {reason}",
    )


def _why_not_now(contender: Contender) -> str:
    late = [v for v in contender.candidate.verdicts if wall_clock(v) and v.status != "within"]
    if not late:
        return ""
    reasons = "; ".join(f"{v.limit} {v.status} ({_found(v)})" for v in late)
    artifact = contender.candidate.artifact
    return f"the cheapest that keeps the ranking is {artifact.recipe} {artifact.format}, but {reasons}"


def _why(contender: Contender, count: int, prefer: str) -> str:
    cheapest = "fewest download bytes" if prefer == "download" else "fewest instructions"
    return f"{cheapest} of the candidates within budget ({count} measured)"


def _found(verdict: Verdict) -> str:
    if verdict.low is not None:
        found = spelled(verdict.found, verdict.low, verdict.high)
    elif verdict.found is not None:
        found = f"{verdict.found:,.6g}"
    else:
        return verdict.note
    return f"{found}, allowed {verdict.allowed:,.6g}"


def _cost(candidate: Candidate, prefer: str) -> tuple[float, float, str]:
    counted = candidate.measurement.get("instructions")
    instructions = float(counted.value) if counted and counted.value is not None else float("inf")
    figures = (float(candidate.download_bytes), instructions)
    first, second = figures if prefer == "download" else figures[::-1]
    return first, second, candidate.artifact.sha256


def _why_none(contenders: list[Contender], dropped: list[Dropped]) -> str:
    if not contenders:
        return "no candidate could be made and run on this target"
    stops: dict[str, int] = {}
    for contender in contenders:
        for verdict in contender.candidate.verdicts:
            if verdict.status != "within" and not wall_clock(verdict):
                said = f"{verdict.limit} {verdict.status}"
                stops[said] = stops.get(said, 0) + 1
    parts = [f"{said} for {count}" for said, count in sorted(stops.items(), key=lambda kv: -kv[1])]
    if dropped:
        parts.append(f"not holding on the target for {len(dropped)}")
    return f"none of {len(contenders)} candidates is within budget: {', '.join(parts)}"


class Shipment(NamedTuple):
    """What every bundle of a build shares."""

    name: str
    data: DataFacts
    vocabulary: bytes
    popularity: "NDArray[np.float64]"
    history_length: int
    item_count: int
    filter_seen: bool
    k: int
    catalogue: bytes | None = None
    query: QueryHashing | None = None
    ngram_popularity: "NDArray[np.float64] | None" = None


def pack(
    shipment: Shipment,
    profile: Profile,
    budget: Budget,
    choice: Choice,
    recipe: Recipe,
    certify: Callable[[Bundle], Certificate],
    out: Path,
) -> tuple[str, str]:
    """Write the bundle of a target and return its file name and content hash.

    `recipe` is what the choice's model was made by, accuracy control settled. `certify` is given what ships.
    """
    assert choice.contender is not None and choice.proof is not None  # noqa: S101  the caller's to check
    candidate, made = choice.contender
    if candidate.quality is None:
        raise MeasureError(profile.name, "the choice was never ranked with", remedy="Report this as a bug.")
    artifact = candidate.artifact
    numbers = candidate.measurement.numbers
    manifest = Manifest(
        name=shipment.name,
        edgepack_version=__version__,
        target=profile.name,
        platform=profile.platform,
        model_file=artifact.file_name,
        artifact=artifact,
        recipe=_recipe(recipe),
        contract=_contract(shipment),
        runtime=_pinned(profile),
        download_bytes=candidate.download_bytes,
        figures=tuple(n for n in numbers if n.exact),
        quality=candidate.quality,
        budget=budget,
        verdicts=tuple(v for v in candidate.verdicts if not wall_clock(v)),
        proof=choice.proof.text,
        why=choice.why,
    )
    members = {
        artifact.file_name: (made.path / artifact.file_name).read_bytes(),
        "vocabulary.json": shipment.vocabulary,
        "goldens.json": choice.goldens,
        "card.md": card.render(manifest, shipment.data.source, shipment.data.licence).encode(),
    }
    if shipment.catalogue is not None:
        members["catalogue.json"] = shipment.catalogue
    run = RunRecord(
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=f"{platform.machine()}, {platform.system()} {platform.release()}",
        figures=tuple(n for n in numbers if not n.exact),
        verdicts=tuple(v for v in candidate.verdicts if wall_clock(v)),
    )
    bundle = archive.sealed(manifest, run, members)
    run = msgspec.structs.replace(run, certificate=certify(bundle))
    file_name = f"{profile.name}{archive.SUFFIX}"
    return file_name, archive.write(out / file_name, manifest, run, members)


def _recipe(recipe: Recipe) -> dict[str, bool | int | float | str]:
    return dict(_flat("", msgspec.to_builtins(recipe)))


def _flat(path: str, value: Any) -> Iterator[tuple[str, bool | int | float | str]]:
    """Yield the values in nested settings by their paths: `tables.network.levels`, `tables.bands.0.share`."""
    if isinstance(value, list | tuple):
        value = {str(index): inner for index, inner in enumerate(value)}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else key, inner)
    elif value is not None:
        yield path, value


def _scalar(value: Any) -> bool | int | float | str:
    plain: bool | int | float | str = ", ".join(value) if isinstance(value, list | tuple) else value
    return plain


def _contract(shipment: Shipment) -> Contract:
    history = Tensor(name="history", dtype="int32", shape=(1, shipment.history_length))
    scores = Tensor(name="scores", dtype="float32", shape=(1, shipment.item_count + 1))
    query = Tensor(name="query", dtype="int32", shape=(1, shipment.query.length)) if shipment.query else None
    return Contract(
        inputs=(history, query) if query else (history,),
        outputs=(scores,),
        history_length=shipment.history_length,
        item_count=shipment.item_count,
        filter_seen=shipment.filter_seen,
        query=shipment.query,
    )


def _pinned(profile: Profile) -> PinnedRuntime:
    from edgepack.store import sha256_of

    return PinnedRuntime(
        name=profile.runtime.name,
        version=profile.runtime.version,
        licence=_LICENCES.get(profile.runtime.name) or PACKAGES[profile.runtime.name].licence,
        files={path.name: sha256_of(path) for path in runtime_files(profile)},
    )


def _goldens(
    place: Place, split: Kept, shipment: Shipment, profile: Profile, made: Kept, proof: Proof
) -> bytes:
    engine = device_engine(profile)
    inputs = {
        "artifact": made.digest,
        "engine": [engine.name, msgspec.to_builtins(engine.emulation)],
        "split": split.digest,
        "contract": [shipment.history_length, shipment.item_count, shipment.filter_seen, shipment.k],
        "difference": proof.largest_difference,
        "code": source_fingerprint("bundle/goldens.py", "runtimes"),
    }

    def make(folder: Path) -> None:
        facts = artifact_of(made)
        assert not isinstance(facts, str)  # noqa: S101  a failed artifact is no contender
        place.tell(f"goldens for {profile.name}", 0, 0)
        found = goldens.find_goldens(
            lambda rows: scores(engine, made.path / facts.file_name, rows, deadline_s=1_200),
            shipment.popularity,
            shipment.history_length,
            _GOLDEN_SEED,
            k=shipment.k,
            filter_seen=shipment.filter_seen,
            largest_difference=proof.largest_difference,
            runtime=engine.name,
            ngrams=_ngrams(shipment),
        )
        write_atomic(folder / "goldens.json", encode(found))

    return (place.store.produce("goldens", inputs, make).path / "goldens.json").read_bytes()


def _ngrams(shipment: Shipment) -> goldens.Ngrams | None:
    if shipment.query is None or shipment.ngram_popularity is None:
        return None
    return goldens.Ngrams(shipment.ngram_popularity, shipment.query.length)


def name_of(candidate: Candidate) -> str:
    """Return recipe and format, which name a candidate."""
    return f"{candidate.artifact.recipe} {candidate.artifact.format}"


def result_of(
    profile: Profile,
    dropped: list[Dropped],
    choice: Choice,
    packed: tuple[str, str] | None,
    attribution: Attribution | None = None,
) -> TargetResult:
    """Return what the reports say of a target; `dropped` never came as far as the choice."""
    chosen = choice.contender
    return TargetResult(
        target=profile.name,
        description=profile.description,
        platform=profile.platform,
        runtime=f"{profile.runtime.name} {profile.runtime.version}",
        candidates=tuple(contender.candidate for contender in choice.contenders),
        dropped=(*dropped, *choice.dropped),
        chosen=chosen.candidate.artifact.sha256 if chosen else None,
        why=choice.why,
        proof=choice.proof.text if choice.proof else "",
        bundle=packed[0] if packed else None,
        content_hash=packed[1] if packed else None,
        attribution=attribution,
    )
