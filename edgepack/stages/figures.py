"""What is learnt of models and artifacts: quality, parity, cost, and proof on the target."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgepack.errors import ConvertError, LimitError, MeasureError
from edgepack.latency.devices import OWN, calibration_folder
from edgepack.profiles import Profile
from edgepack.results import Artifact, Drop, Estimate, GroupQuality, Measurement, ModelRow, Number, Quality
from edgepack.rows import Rows, part, row_count
from edgepack.runtimes.engines import CHUNK_ROWS, Engine, device_engine, score_chunks, scores
from edgepack.stages import Place, groups, versions
from edgepack.stages.configured import onnx_source
from edgepack.stages.logs import calibration, parity_rows, tested
from edgepack.stages.models import Trained, trained_graphs
from edgepack.store import Kept, sha256_of, source_fingerprint, write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepack.data.types import EvaluationSet, Split
    from edgepack.evaluate.ranking import Evaluation

_BOOTSTRAP_SEED = 17
PROOF_ROWS = 512
"""How many users' lists must be equal on an emulated core before the host's quality counts for it."""
INTEGER_PROOF_ROWS = 64
_LARGEST_DIFFERENCE = 1e-4


def protocol(place: Place) -> str:
    """Return how ranking is judged, in words for every report."""
    seen = "seen items filtered" if place.config.quality.filter_seen else "seen items not filtered"
    return f"full catalogue, {seen}, ties against the model"


# Models and baselines on the test users


def baselines(place: Place, split: Kept) -> tuple[ModelRow, ...]:
    """Return a row for each baseline, fitted on the training sequences."""
    inputs = {
        "split": split.digest,
        "quality": _quality_key(place),
        "code": source_fingerprint("train/baselines.py", "evaluate"),
        "versions": versions("numpy", "scipy"),
    }

    def make(folder: Path) -> None:
        write_atomic(folder / "rows.json", msgspec.json.encode(_baseline_rows(place, split)))

    kept = place.store.produce("baselines", inputs, make)
    return msgspec.json.decode((kept.path / "rows.json").read_bytes(), type=tuple[ModelRow, ...])


def _quality_key(place: Place) -> dict[str, object]:
    return {"k": place.config.quality.k, "filter_seen": place.config.quality.filter_seen}


def _baseline_rows(place: Place, split: Kept) -> list[ModelRow]:
    from edgepack.data.split import load_split
    from edgepack.evaluate.ranking import chunks
    from edgepack.train.baselines import BASELINES, why_not

    whole, _ = load_split(split.path)
    rows = []
    for done, (name, make) in enumerate(BASELINES.items()):
        place.tell(f"baseline {name}", done, len(BASELINES))
        note = why_not(name, whole.item_count)
        metrics: dict[str, Estimate] = {}
        if not note:
            scorer = make(whole.train, whole.item_count)
            found = _evaluated(place, (scorer(part) for part in chunks(whole.test.history, 512)), whole.test)
            metrics = _estimates(found)
        rows.append(ModelRow(name=name, kind="baseline", metrics=metrics, note=note))
    if whole.queries is not None:
        rows.append(ModelRow(name="query-match", kind="baseline", metrics=_query_match(place, split, whole)))
    return rows


def _query_match(place: Place, split: Kept, whole: "Split") -> dict[str, Estimate]:
    from edgepack.train.baselines import query_match

    users, fed = tested(place, split)
    scorer, starts = query_match(whole), range(0, row_count(fed), CHUNK_ROWS)
    scored = (scorer(part(fed, start, start + CHUNK_ROWS)["query"]) for start in starts)
    return _estimates(_evaluated(place, scored, users))


def _evaluated(place: Place, chunks: "Iterable[NDArray[np.float32]]", users: "EvaluationSet") -> "Evaluation":
    from edgepack.evaluate.ranking import evaluate

    ks = tuple(sorted({10, place.config.quality.k}))
    return evaluate(chunks, users, ks, place.config.quality.filter_seen)


def _estimates(found: "Evaluation") -> dict[str, Estimate]:
    from edgepack.evaluate.paired import estimate

    return {name: estimate(values, _BOOTSTRAP_SEED) for name, values in sorted(found.metrics.items())}


def float_quality(place: Place, split: Kept, trained: Trained, *, searches: bool = True) -> Kept:
    """Rank with the float Keras model: `evaluation.npz` (per user, top 10) and `metrics.json`.

    Without `searches` a search model is told of none.
    """
    model = trained.model
    inputs = {
        "split": split.digest,
        "weights": trained.weights.digest,
        **({"others": [one.digest for one in trained.others]} if trained.others else {}),
        "model": model.identity,
        "quality": _quality_key(place),
        "code": source_fingerprint("evaluate"),
        "versions": versions("tensorflow", "tf_keras"),
    }
    if not searches:
        inputs["searches"] = ["none"]

    def make(folder: Path) -> None:
        place.tell(f"ranking with {model.name}, float", 0, 0)
        users, fed = tested(place, split, model.length)
        if not searches:
            fed["query"][:] = 0
        _write_evaluation(folder, _evaluated(place, _float_scores(trained, fed), users))

    return place.store.produce("float-quality", inputs, make)


def _float_scores(trained: Trained, rows: Rows) -> "Iterable[NDArray[np.float32]]":
    if trained.model.onnx is not None:
        from edgepack.convert import from_onnx

        source = onnx_source(trained.model)
        starts = range(0, row_count(rows), CHUNK_ROWS)
        return (from_onnx.reference(source, part(rows, at, at + CHUNK_ROWS)["history"]) for at in starts)
    from edgepack.train.fit import predict

    each = [predict(trained_graphs(one).serving, rows) for one in trained.members]
    return each[0] if len(each) == 1 else (sum(scores) / len(each) for scores in zip(*each, strict=True))


def _write_evaluation(folder: Path, found: "Evaluation") -> None:
    import numpy as np

    np.savez(folder / "evaluation.npz", top10=found.top10, **found.metrics)
    write_atomic(folder / "metrics.json", msgspec.json.encode(_estimates(found)))


def evaluation_of(kept: Kept) -> "Evaluation":
    """Return what every user of an evaluation got."""
    import numpy as np

    from edgepack.evaluate.ranking import Evaluation

    with np.load(kept.path / "evaluation.npz") as stored:
        return Evaluation({name: stored[name] for name in stored.files if name != "top10"}, stored["top10"])


def metrics_of(kept: Kept) -> dict[str, Estimate]:
    """Return the metrics of an evaluation, with their intervals."""
    return msgspec.json.decode((kept.path / "metrics.json").read_bytes(), type=dict[str, Estimate])


def overlap_of(first: Kept, second: Kept) -> float:
    """Return the mean overlap@10 of two evaluations of the same users."""
    from edgepack.evaluate.ranking import overlap

    return float(overlap(evaluation_of(first).top10, evaluation_of(second).top10).mean())


# Artifacts


def parity(place: Place, split: Kept, compressed: Kept, made: Kept, engine: str) -> str:
    """Hold an artifact against the Keras model it came from; return why it may not ship, "" if it may."""
    inputs = {
        "artifact": made.digest,
        "reference": compressed.digest,
        "engine": engine,
        "code": source_fingerprint("convert/parity.py", "runtimes"),
        "versions": _runtime_versions(),
    }

    def make(folder: Path) -> None:
        place.tell(f"parity in {engine}", 0, 0)
        reason = _parity_failure(place, split, compressed, made, engine)
        write_atomic(folder / "reason.json", msgspec.json.encode(reason))

    kept = place.store.produce("parity", inputs, make)
    return msgspec.json.decode((kept.path / "reason.json").read_bytes(), type=str)


def _runtime_versions() -> dict[str, str]:
    return versions("ai-edge-litert", "tflite-runtime", "onnxruntime")


def artifact_of(made: Kept) -> Artifact | str:
    """Return what the conversion described, or why it failed."""
    failed = made.path / "failed.json"
    if failed.exists():
        return msgspec.json.decode(failed.read_bytes(), type=str)
    return msgspec.json.decode((made.path / "artifact.json").read_bytes(), type=Artifact)


def file_of(made: Kept) -> tuple[Artifact, Path]:
    """Return a converted artifact and its file. Raises ConvertError when the conversion failed."""
    found = artifact_of(made)
    if isinstance(found, str):
        raise ConvertError("artifact", found, remedy="Leave this format out.")
    return found, made.path / found.file_name


def _parity_failure(place: Place, split: Kept, compressed: Kept, made: Kept, engine: str) -> str:
    import numpy as np

    from edgepack.convert import parity as gate

    facts, path = file_of(made)
    kind = "int8" if "int8" in facts.format else "plain"
    reference = np.load(compressed.path / f"reference_{kind}.npy")
    try:
        found = scores(Engine(engine), path, parity_rows(place, split))
    except (ConvertError, MeasureError, LimitError) as error:
        return str(error)
    reason: str = gate.check(reference, found, facts.format).reason
    return reason


def quality(place: Place, split: Kept, reference: Kept, made: Kept, engine: Engine) -> Quality:
    """Rank all test users with an artifact under `engine` and hold it against the float reference."""
    kept = ranked(place, split, made, engine)
    grouped = groups.groupings(place, split)
    inputs = {
        "float": reference.digest,
        "artifact": kept.digest,
        "groups": grouped.digest,
        "code": source_fingerprint("evaluate"),
    }

    def make(folder: Path) -> None:
        write_atomic(folder / "drops.json", msgspec.json.encode(_drops(reference, kept)))
        losses = groups.losses(grouped, evaluation_of(reference), evaluation_of(kept), _BOOTSTRAP_SEED)
        write_atomic(folder / "groups.json", msgspec.json.encode(losses))

    drops = place.store.produce("drops", inputs, make)
    return Quality(
        metrics=metrics_of(kept),
        drops=msgspec.json.decode((drops.path / "drops.json").read_bytes(), type=dict[str, Drop]),
        overlap_at_10=overlap_of(reference, kept),
        users=len(evaluation_of(kept).top10),
        runtime=engine.name,
        protocol=protocol(place),
        groups=msgspec.json.decode((drops.path / "groups.json").read_bytes(), type=tuple[GroupQuality, ...]),
    )


def ranked(place: Place, split: Kept, made: Kept, engine: Engine) -> Kept:
    """Rank all test users with an artifact under `engine`: `evaluation.npz` and `metrics.json`."""
    inputs = {
        "split": split.digest,
        "artifact": made.digest,
        "engine": _engine_key(engine),
        "quality": _quality_key(place),
        "code": source_fingerprint("evaluate", "runtimes"),
        "versions": _runtime_versions(),
    }

    def make(folder: Path) -> None:
        facts, path = file_of(made)
        users, fed = tested(place, split)
        title = f"ranking with {facts.recipe} {facts.format} in {engine.name}"
        chunks = score_chunks(engine, path, fed, lambda done, total: place.tell(title, done, total))
        _write_evaluation(folder, _evaluated(place, chunks, users))

    return place.store.produce("ranked", inputs, make)


def _engine_key(engine: Engine) -> list[object]:
    return [engine.name, msgspec.to_builtins(engine.emulation)]


def _drops(reference: Kept, kept: Kept) -> dict[str, Drop]:
    from edgepack.evaluate.paired import drops

    before, after = evaluation_of(reference).metrics, evaluation_of(kept).metrics
    some = {name: values for name, values in sorted(before.items()) if values.any()}
    return drops(some, after, _BOOTSTRAP_SEED) if some else {}


def measure(place: Place, split: Kept, made: Kept, profile: Profile) -> Measurement:
    """Measure what an artifact costs on a target."""
    facts, path = file_of(made)
    device = msgspec.to_builtins(profile)
    inputs = {
        "artifact": facts.sha256,
        "device": [device["emulation"], device["browser"], device["runtime"]],
        "model": _device_model(profile),
        "history": split.digest,
        "length": place.config.model.history_length,
        "code": source_fingerprint("measure", "runtimes", "latency"),
    }

    def make(folder: Path) -> None:
        place.tell(f"measuring {facts.recipe} {facts.format} on {profile.name}", 0, 0)
        found = measured(path, facts.sha256, profile, longest(calibration(place, split)))
        write_atomic(folder / "measurement.json", msgspec.json.encode(found))

    kept = place.store.produce("measure", inputs, make)
    found = msgspec.json.decode((kept.path / "measurement.json").read_bytes(), type=Measurement)
    return msgspec.structs.replace(found, target=profile.name)


def _device_model(profile: Profile) -> list[str]:
    """Return what gives the target its milliseconds: its devices, and digests of what is known of them."""
    if not profile.devices:
        return []
    known = [calibration_folder() / name for name in _CALIBRATION]
    own = [path for name in profile.devices for path in sorted(OWN.glob(f"{name}.*"))]
    return [*profile.devices, *(sha256_of(path) for path in (*known, *own))]


_CALIBRATION = ("devices.toml", "model.json", "xnnpack.csv", "litert-counts.json")


def unmeasured(profile: Profile, sha256: str, reason: str) -> Measurement:
    """Return the measurement of a page that was not timed, and why."""
    numbers = tuple(
        Number(name=name, value=None, provenance="measured", source=f"not timed: {reason}", exact=False)
        for name in ("load_ms", "latency_p50_ms", "peak_memory_bytes")
    )
    return Measurement(target=profile.name, artifact_sha256=sha256, numbers=numbers)


def longest(rows: Rows) -> Rows:
    """Return the first of the fullest rows, int32 [1, L] an input: what costs are measured with."""
    fullest = int(sum((values > 0).sum(axis=1) for values in rows.values()).argmax())
    return part(rows, fullest, fullest + 1)


def measured(path: Path, sha256: str, profile: Profile, row: Rows) -> Measurement:
    """Measure a model file on a target with one row, int32 [1, L] an input."""
    if profile.platform == "web-wasm":
        from edgepack.measure import web

        return web.measure(path, sha256, profile, row)
    from edgepack.measure import arm

    return arm.measure(path, sha256, profile, row)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the host's quality figures hold on the target itself: `failure` is "" when they do.

    `overlap_at_10` is the mean over the sample between the two lists of a user.
    """

    text: str
    failure: str
    largest_difference: float
    overlap_at_10: float


def prove(place: Place, split: Kept, made: Kept, profile: Profile, host: Engine) -> Proof:
    """Run a sample on the target's own engine and compare it with the host's answers.

    All-integer artifacts must agree to the byte; others in every top-10 list and to 1e-4 of the range of
    the scores.
    """
    facts, _ = file_of(made)
    engine = device_engine(profile)
    inputs = {
        "artifact": facts.sha256,
        "engine": _engine_key(engine),
        "host": host.name,
        "split": split.digest,
        "length": place.config.model.history_length,
        "code": source_fingerprint("runtimes", "stages/figures.py"),
        "versions": _runtime_versions(),
    }

    def make(folder: Path) -> None:
        write_atomic(
            folder / "proof.json", msgspec.json.encode(_proof(place, split, made, profile, engine, host))
        )

    kept = place.store.produce("prove", inputs, make)
    return msgspec.json.decode((kept.path / "proof.json").read_bytes(), type=Proof)


def _proof(place: Place, split: Kept, made: Kept, profile: Profile, engine: Engine, host: Engine) -> Proof:
    from edgepack.convert.describe import is_all_integer

    facts, path = file_of(made)
    exact = is_all_integer(path.read_bytes(), facts.format)
    rows = part(tested(place, split)[1], 0, INTEGER_PROOF_ROWS if exact else PROOF_ROWS)
    count = row_count(rows)
    title = f"proving {facts.recipe} {facts.format} on {profile.name}"
    place.tell(title, 0, count)
    theirs = scores(engine, path, rows, deadline_s=1_200)
    place.tell(title, count, count)
    ours = scores(host, path, rows)
    # A proof serves every target with this engine and core, so it names these and no target.
    where = f"{engine.name} ({engine.emulation.core})" if engine.emulation else engine.name
    return compared(ours, theirs, exact=exact, where=where, host=host.name)


def compared(
    ours: "NDArray[np.float32]", theirs: "NDArray[np.float32]", *, exact: bool, where: str, host: str
) -> Proof:
    """Compare host and target scores, float32 [n, V + 1], as rule 4 of the design asks."""
    import numpy as np

    from edgepack.evaluate.ranking import overlap

    difference = float(np.abs(ours[:, 1:].astype(np.float64) - theirs[:, 1:]).max())
    spread = float(ours[:, 1:].max() - ours[:, 1:].min())
    tops = [np.argsort(-side[:, 1:], axis=1, kind="stable")[:, :10] + 1 for side in (ours, theirs)]
    lists = int((tops[0] == tops[1]).all(axis=1).sum())
    shared = float(overlap(*tops).mean())
    told = f"{len(ours)} users on {where} against {host}: "
    if exact:
        holds = bool((ours == theirs).all())
        told += "byte-equal scores" if holds else f"scores differ by up to {difference:.3g} of {spread:.3g}"
    else:
        holds = lists == len(ours) and difference <= _LARGEST_DIFFERENCE * spread
        told += (
            f"{lists} identical top-10 lists, largest difference {difference:.2g} of a range of {spread:.3g}"
        )
    failure = "" if holds else told
    return Proof(text=told, failure=failure, largest_difference=difference, overlap_at_10=shared)
