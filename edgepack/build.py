"""The pipeline: the only place that knows the order of the stages.

log -> split -> float model -> weights of each recipe -> artifacts -> parity -> ranking -> measuring ->
judging -> choice, proof on the target, bundle. With a teacher, it is the float model that everything is held
against, and the model that ships is its student.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from edgepack import __version__, proc, ship
from edgepack.budget import judge
from edgepack.bundle.archive import Bundle
from edgepack.bundle.manifest import Certificate
from edgepack.compress.recipes import Recipe, known
from edgepack.config import Config
from edgepack.planning import Plan, recipes_in_order
from edgepack.profiles import Profile
from edgepack.results import (
    Artifact,
    Attribution,
    BuildResult,
    Candidate,
    Controlled,
    DataFacts,
    Dropped,
    Example,
    Measurement,
    ModelRow,
    Quality,
    TargetResult,
)
from edgepack.runtimes.engines import device_engine, host_engine
from edgepack.stages import (
    Place,
    artifacts,
    attribution,
    catalogue,
    certificate,
    compression,
    configured,
    controlled,
    examples,
    figures,
    logs,
    models,
    sensitivity,
    versions,
)
from edgepack.store import Kept, Store
from edgepack.tools import Tell

_T = TypeVar("_T")
_SHOWN = {
    True: ("tflite-float32", "onnx-float32", "ort-float32"),
    False: ("tflite-int8-f32scores", "tflite-int8", "onnx-qdq", "ort-qdq", "onnx-dynamic", "ort-dynamic"),
}
_VERSIONED = (
    "tensorflow",
    "tf_keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "tflite-runtime",
    "onnx",
    "onnxruntime",
    "tf2onnx",
    "numpy",
)


def data_facts(config_path: Path, config: Config, store: Path, tell: Tell) -> DataFacts:
    """Read and clean the configured log, and return what was learnt."""
    return logs.facts(logs.split_log(Place(config, config_path.parent, Store(store), tell)))


def float_rows(config_path: Path, config: Config, store: Path, tell: Tell) -> tuple[ModelRow, ...]:
    """Train the float model and return its row and the baselines'; of a student its teacher's row first."""
    place = Place(config, config_path.parent, Store(store), tell)
    split = logs.split_log(place)
    items = logs.facts(split).items
    model = configured.model(place, items)
    reference, ranked = _reference(place, split, items)
    rows = (*_reference_rows(place, split, reference, ranked), *figures.baselines(place, split))
    if place.config.teacher is None or model.why_not_trained_further:
        return rows
    student = models.Trained(model, models.distil(place, split, model, reference, config.seed))
    found = figures.float_quality(place, split, student)
    overlap = figures.overlap_of(ranked, found)
    row = ModelRow(
        name=f"{model.name} (student, float)",
        kind="recipe",
        metrics=figures.metrics_of(found),
        overlap_at_10=overlap,
        note=f"overlap@10 with the teacher {overlap:.3f}",
    )
    return (*rows, row)


def _reference(place: Place, split: Kept, items: int) -> tuple[models.Trained, Kept]:
    """Return the trained model that all quality is held against, and how it ranks the test users."""
    model = configured.teacher(place, items) or configured.model(place, items)
    trained = models.train_each(place, split, model, place.config.seed, _trainings(place))
    return trained, figures.float_quality(place, split, trained)


def _trainings(place: Place) -> int:
    return place.config.teacher.seeds if place.config.teacher else 1


def _reference_rows(place: Place, split: Kept, reference: models.Trained, ranked: Kept) -> Iterator[ModelRow]:
    """Yield the reference's row, and a search model's without the searches: what these are worth."""
    role = "teacher, float" if place.config.teacher else "float"
    of = f", mean of {len(reference.members)}" if reference.others else ""
    name = f"{reference.model.name} ({role}{of})"
    yield ModelRow(name=name, kind="model", metrics=figures.metrics_of(ranked))
    if place.config.model.query_length:
        silent = figures.float_quality(place, split, reference, searches=False)
        yield ModelRow(name=f"{name}, no search", kind="model", metrics=figures.metrics_of(silent))


def run(planned: Plan, store_folder: Path, out: Path, tell: Tell) -> BuildResult:
    """Carry out a plan: write a bundle for every target that gets one into `out`, return all figures.

    Raises the stage's own error; what was finished stays in the store, and the next call goes on from it.
    """
    began = time.monotonic()
    place = Place(planned.config, Path(planned.folder), Store(store_folder), tell)
    split = logs.split_log(place)
    facts = logs.facts(split)
    shown = catalogue.catalogue(place, split)  # a wrong column shows before anything has been trained
    model = configured.model(place, facts.items)
    reference, ranked = _reference(place, split, facts.items)
    baselines = figures.baselines(place, split)
    noise = _noise_floor(place, split, reference, ranked)
    attributed = planned.config.quality.attribute_loss
    units = sensitivity.sensitivity(place, split, reference) if attributed else ()

    build = _Build(planned, place, split, model, reference, ranked, shown, out)
    build.prepare()
    targets = build.targets()
    of_float = _reference_rows(place, split, reference, ranked)
    rows = (*of_float, *baselines, *build.recipe_rows())
    return BuildResult(
        edgepack_version=__version__,
        name=planned.name,
        data=facts,
        model={
            "name": model.name,
            "history_length": planned.config.model.history_length,
            **configured.search_sizes(planned.config.model),
            **planned.config.model.hyper,
            **_told_teacher(reference, planned.config),
        },
        protocol=figures.protocol(place),
        rows=rows,
        noise_floor_overlap_at_10=noise,
        curve=tuple(msgspec.json.decode((reference.weights.path / "curve.json").read_bytes())),
        targets=targets,
        versions=versions(*_VERSIONED),
        stages_made=tuple(place.store.made),
        stages_kept=tuple(place.store.kept),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - began,
        sensitivity=units,
        controlled=build.controlled(),
    )


def _told_teacher(reference: models.Trained, config: Config) -> dict[str, str | int]:
    if config.teacher is None:
        return {}
    seeds = {"teacher_seeds": config.teacher.seeds} if reference.others else {}
    return {"teacher": reference.model.name, **seeds}


def _noise_floor(place: Place, split: Kept, reference: models.Trained, ranked: Kept) -> float | None:
    model = reference.model
    if not place.config.quality.noise_floor or model.comes_trained:
        return None
    count = _trainings(place)
    other = models.train_each(place, split, model, place.config.seed + count, count)
    return figures.overlap_of(ranked, figures.float_quality(place, split, other))


class _Build:
    """The stages of one build with what they share; every method may be asked again at no cost."""

    def __init__(
        self,
        planned: Plan,
        place: Place,
        split: Kept,
        model: configured.Model,
        reference: models.Trained,
        ranked: Kept,
        shown: bytes | None,
        out: Path,
    ) -> None:
        self.planned, self.place, self.split, self.model = planned, place, split, model
        self.reference, self.ranked, self.catalogue, self.out = reference, ranked, shown, out
        self.teacher = reference if planned.config.teacher else None
        self.vocabulary = (split.path / "vocabulary.json").read_bytes()
        self.recipes = known(planned.config.compress.own)
        self.refused: dict[str, str] = {}
        self.rows: dict[tuple[str, str], ModelRow] = {}
        out.mkdir(parents=True, exist_ok=True)

    def targets(self) -> tuple[TargetResult, ...]:
        """Settle every target; those with a wall clock come last, one by one, on a quiet machine."""
        quiet = [p for p in self.planned.targets if p.browser is not None]
        others = [p for p in self.planned.targets if p.browser is None]
        told = partial(self._tell_done, "proving and packing", len(others))
        results = _side_by_side([partial(self.target, p) for p in others], told)
        results += [self.target(p) for p in quiet]
        by_name = {result.target: result for result in results}
        return tuple(by_name[p.name] for p in self.planned.targets)

    def target(self, profile: Profile) -> TargetResult:
        """Make, rank, measure and judge every candidate of a target, and pack the one that ships."""
        contenders: list[ship.Contender] = []
        dropped: list[Dropped] = []
        for recipe, format in self.planned.candidates[profile.name]:
            found = self._contender(profile, recipe, format)
            if isinstance(found, Dropped):
                dropped.append(found)
            else:
                contenders.append(found)
        choice = ship.choose(
            self.place,
            self.split,
            self._shipment(),
            profile,
            contenders,
            self.planned.config.prefer,
            partial(self._ranked_on_target, profile),
        )
        packed = operators = None
        if choice.contender is not None:
            operators = self._attributed(profile, choice.contender, choice)
            budget = self.planned.budgets[profile.name]
            settled = self._settled(choice.contender.candidate.artifact.recipe)
            certify = partial(self._certified, profile, choice.contender)
            packed = ship.pack(self._shipment(), profile, budget, choice, settled, certify, self.out)
        else:
            # A bundle of an earlier build would look like this one's.
            (self.out / f"{profile.name}.edgepack").unlink(missing_ok=True)
        result = ship.result_of(profile, dropped, choice, packed, operators)
        return msgspec.structs.replace(result, examples=self._examples(profile, choice))

    def _certified(self, profile: Profile, chosen: ship.Contender, bundle: Bundle) -> Certificate:
        artifact = chosen.candidate.artifact
        made = self._made(artifact.recipe, artifact.format)
        assert not isinstance(made, Dropped)  # noqa: S101  what was chosen was made
        return certificate.certificate(self.place, self.split, *made, profile, bundle)

    def _examples(self, profile: Profile, choice: ship.Choice) -> tuple[Example, ...]:
        if choice.contender is None or choice.contender.candidate.quality is None:
            return ()
        made, quality = choice.contender.made, choice.contender.candidate.quality
        return examples.examples(self.place, self.split, self.ranked, made, profile, quality)

    def _attributed(
        self, profile: Profile, chosen: ship.Contender, choice: ship.Choice
    ) -> Attribution | None:
        costs = {ship.name_of(one.candidate): one.candidate.measurement for one in choice.contenders}
        whole = chosen.candidate.measurement
        return attribution.attribution(self.place, self.split, chosen.made, profile, whole, costs)

    def prepare(self) -> None:
        """Make every artifact, TensorFlow's work one by one; then let host processes work side by side.

        Only wall-clock timing is left for later: it wants the machine for itself.
        """
        wanted = [(p, *pair) for p in self.planned.targets for pair in self.planned.candidates[p.name]]
        pairs = dict.fromkeys((recipe, format) for _, recipe, format in wanted)
        for done, (recipe, format) in enumerate(pairs):
            self.place.tell("artifacts", done, len(pairs))
            self._made(recipe, format)
        jobs = [partial(self._contender, *job, timed=False) for job in wanted]
        _side_by_side(jobs, partial(self._tell_done, "parity, ranking and counting", len(jobs)))

    def _tell_done(self, what: str, total: int, done: int) -> None:
        self.place.tell(what, done, total)

    def _made(self, recipe: str, format: str) -> tuple[Kept, Kept] | Dropped:
        if reason := self._why_not(recipe):
            return Dropped(recipe=recipe, format=format, runtime="compression", reason=reason)
        trained = self._trained(recipe)
        weights = compression.compress(self.place, self.split, trained, recipe, self.teacher)
        made = artifacts.artifact(self.place, self.split, self.model, weights, recipe, format)
        failure = figures.artifact_of(made)
        if isinstance(failure, str):
            return Dropped(recipe=recipe, format=format, runtime="conversion", reason=failure)
        return weights, made

    def _why_not(self, recipe: str) -> str:
        if recipe not in self.refused:
            self.refused[recipe] = compression.why_not(self.model, self.recipes[recipe])
        return self.refused[recipe]

    def _trained(self, recipe: str) -> models.Trained:
        """Return the float model that a recipe starts from."""
        if self.teacher is None:
            return self.reference
        seed = self.planned.config.seed
        if self.recipes[recipe].distil:
            weights = models.distil(self.place, self.split, self.model, self.teacher, seed)
        else:
            weights = models.train(self.place, self.split, self.model, seed)
        return models.Trained(self.model, weights)

    def _settled(self, recipe: str) -> Recipe:
        """Return a recipe with the grids that accuracy control found for it, where it has that."""
        if not self.recipes[recipe].controls:
            return self.recipes[recipe]
        return controlled.settled(self.place, self.split, self._trained(recipe), self.recipes[recipe])

    def _contender(
        self, profile: Profile, recipe: str, format: str, timed: bool = True
    ) -> ship.Contender | Dropped:
        found = self._made(recipe, format)
        if isinstance(found, Dropped):
            return found
        compressed, made = found
        engine = host_engine(profile)
        for name in _parity_engines(format, engine.name):
            if reason := figures.parity(self.place, self.split, compressed, made, name):
                return Dropped(recipe=recipe, format=format, runtime=name, reason=reason)
        quality = figures.quality(self.place, self.split, self.ranked, made, engine)
        candidate = self._judged(profile, made, quality, timed)
        self.rows.setdefault((recipe, format), _recipe_row(candidate))
        return ship.Contender(candidate, made)

    def _ranked_on_target(self, profile: Profile, contender: ship.Contender) -> ship.Contender:
        engine = device_engine(profile)
        quality = figures.quality(self.place, self.split, self.ranked, contender.made, engine)
        return ship.Contender(self._judged(profile, contender.made, quality, timed=True), contender.made)

    def _judged(self, profile: Profile, made: Kept, quality: Quality, timed: bool) -> Candidate:
        artifact, _ = figures.file_of(made)
        download = ship.download_bytes(
            profile, artifact.deflate_bytes, artifact.brotli_bytes, self.vocabulary
        )

        def judged(measurement: Measurement) -> Candidate:
            verdicts = judge(
                self.planned.budgets[profile.name],
                model_bytes=artifact.model_bytes,
                download_bytes=download,
                measurement=measurement,
                quality=quality,
            )
            return Candidate(
                artifact=artifact,
                measurement=measurement,
                quality=quality,
                download_bytes=download,
                verdicts=verdicts,
            )

        if profile.browser is not None:
            # Timing a page takes seconds; one that fails on exact figures already is spared it.
            reason = _exceeded(judged(figures.unmeasured(profile, artifact.sha256, "")))
            if reason or not timed:
                return judged(figures.unmeasured(profile, artifact.sha256, reason))
        return judged(figures.measure(self.place, self.split, made, profile))

    def _shipment(self) -> ship.Shipment:
        config = self.planned.config
        facts = logs.facts(self.split)
        return ship.Shipment(
            name=self.planned.name,
            data=facts,
            vocabulary=self.vocabulary,
            catalogue=self.catalogue,
            popularity=logs.popularity(self.split),
            query=logs.hashing(config.model),
            ngram_popularity=logs.ngram_popularity(self.split),
            history_length=config.model.history_length,
            item_count=facts.items,
            filter_seen=config.quality.filter_seen,
            k=config.quality.k,
        )

    def controlled(self) -> tuple[Controlled, ...]:
        """Return what accuracy control found for each recipe that has it."""
        carried_out = dict.fromkeys(recipe for recipe, _ in self.rows)
        return tuple(
            controlled.told(self.place, self.split, self._trained(name), self.recipes[name])
            for name in self.planned.config.compress.recipes
            if name in carried_out and self.recipes[name].controls
        )

    def recipe_rows(self) -> Iterator[ModelRow]:
        """Yield one row a recipe: the float file, then each recipe's int8 file (or the nearest to it)."""
        for recipe in recipes_in_order(self.planned.config.compress.recipes, self.recipes):
            for format in _SHOWN[self.recipes[recipe].is_float]:
                if (recipe, format) in self.rows:
                    yield self.rows[recipe, format]
                    break


def _side_by_side(jobs: Sequence[Callable[[], _T]], tell: Callable[[int], None]) -> list[_T]:
    pool = ThreadPoolExecutor(os.cpu_count())
    futures = [pool.submit(job) for job in jobs]
    try:
        for done, future in enumerate(as_completed(futures), 1):
            future.result()  # the first failure ends the build at once
            tell(done)
        return [future.result() for future in futures]
    finally:
        proc.abandon(pool, futures)


def _exceeded(candidate: Candidate) -> str:
    return ", ".join(f"{v.limit} is over" for v in candidate.verdicts if v.status == "over")


def _parity_engines(format: str, own: str) -> tuple[str, ...]:
    # An ONNX file is quantized and checked by onnxruntime, and shipped to onnxruntime-web: both must agree.
    return (own,) if format.startswith("tflite") else ("onnxruntime", own)


def _recipe_row(candidate: Candidate) -> ModelRow:
    artifact: Artifact = candidate.artifact
    quality = candidate.quality
    return ModelRow(
        name=f"{artifact.recipe} ({artifact.format})",
        kind="recipe",
        metrics=quality.metrics if quality else {},
        overlap_at_10=quality.overlap_at_10 if quality else None,
        model_bytes=artifact.model_bytes,
        deflate_bytes=artifact.deflate_bytes,
        zero_share_min=min(artifact.zero_share.values(), default=None),
        groups=quality.groups if quality else (),
    )
