"""The pipeline: the only place that knows the order of the stages.

log -> split -> float model -> weights of each recipe -> artifacts -> parity -> ranking -> measuring ->
judging -> choice, proof on the target, bundle.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from edgepack import __version__, proc, ship
from edgepack.budget import judge
from edgepack.compress.recipes import RECIPES
from edgepack.config import Config, beside
from edgepack.errors import ConfigError, did_you_mean
from edgepack.latency.as_target import named_profiles
from edgepack.profiles import Budget, Profile, merged
from edgepack.results import (
    Artifact,
    Attribution,
    BuildResult,
    Candidate,
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
    examples,
    figures,
    logs,
    models,
    sensitivity,
    versions,
)
from edgepack.store import Kept, Store
from edgepack.tools import Tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_T = TypeVar("_T")
_FLOAT_FORMATS = ("*-float32", "*-float16", "*-dynamic")
# A trained recipe's weights fit the int8 grid, which TFLite's dynamic range does not use.
_QUANTIZED_FORMATS = ("tflite-int8", "tflite-int8-f32scores", "onnx-dynamic", "ort-dynamic", "*-qdq")
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


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a build would do. `candidates` maps a target to its (recipe, format) pairs."""

    name: str
    folder: str
    config: Config
    targets: tuple[Profile, ...]
    budgets: dict[str, Budget]
    candidates: dict[str, tuple[tuple[str, str], ...]]


def plan(config_path: Path, config: Config, patterns: tuple[str, ...] = ()) -> Plan:
    """Resolve targets, budgets and candidates. Raises ConfigError for a name that is not known."""
    own = beside(config_path, config.targets.folder) if config.targets.folder else None
    profiles = named_profiles(patterns or config.targets.names, own)
    for recipe in config.compress.recipes:
        if recipe not in RECIPES:
            raise ConfigError(
                f"compress.recipes '{recipe}'",
                "no such recipe",
                allowed=f"known are {', '.join(RECIPES)}",
                remedy=f"{did_you_mean(recipe, list(RECIPES))}Correct or delete it.",
            )
    return Plan(
        name=config.name,
        folder=str(config_path.parent),
        config=config,
        targets=tuple(profiles),
        budgets={p.name: _budget(p, config) for p in profiles},
        candidates={p.name: tuple(_candidates(p, config.compress.recipes)) for p in profiles},
    )


def _budget(profile: Profile, config: Config) -> Budget:
    budget = profile.budget
    for pattern, own in config.budget.items():
        if fnmatch(profile.name, pattern):
            budget = merged(budget, own)
    return budget


def _candidates(profile: Profile, recipes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for recipe in ("float", *(name for name in recipes if name != "float")):
        patterns = _FLOAT_FORMATS if recipe == "float" else _QUANTIZED_FORMATS
        for format in profile.formats:
            # The dynamic file of untrained weights is the float recipe's already.
            twice = recipe == "ptq" and format.endswith("-dynamic")
            if any(fnmatch(format, pattern) for pattern in patterns) and not twice:
                yield recipe, format


def render_plan(planned: Plan, as_json: bool) -> str:
    """Return the plan as text or JSON."""
    if as_json:
        return msgspec.json.format(msgspec.json.encode(planned), indent=2).decode() + "\n"
    lines = [f"{planned.name}: {planned.config.model.family or planned.config.model.file}, recipes float, "]
    lines[0] += ", ".join(planned.config.compress.recipes)
    for target in planned.targets:
        formats = sorted({format for _, format in planned.candidates[target.name]})
        count = len(planned.candidates[target.name])
        lines.append(f"  {target.name}: {count} candidates ({', '.join(formats)})")
    return "\n".join(lines) + "\n"


def data_facts(config_path: Path, config: Config, store: Path, tell: Tell) -> DataFacts:
    """Read and clean the configured log, and return what was learnt."""
    return logs.facts(logs.split_log(Place(config, config_path.parent, Store(store), tell)))


def float_rows(config_path: Path, config: Config, store: Path, tell: Tell) -> tuple[ModelRow, ...]:
    """Train the float model and return its row and the baselines'."""
    place = Place(config, config_path.parent, Store(store), tell)
    split = logs.split_log(place)
    model = models.model(place, logs.facts(split).items)
    trained = models.train(place, split, model, config.seed)
    reference = figures.float_quality(place, split, model, trained)
    return (*_float_rows(place, split, model, trained, reference), *figures.baselines(place, split))


def _float_rows(
    place: Place, split: Kept, model: models.Model, trained: Kept, reference: Kept
) -> Iterator[ModelRow]:
    """Yield the float model's row, and a search model's without the searches: what these are worth."""
    yield ModelRow(name=f"{model.name} (float)", kind="model", metrics=figures.metrics_of(reference))
    if place.config.model.query_length:
        silent = figures.float_quality(place, split, model, trained, searches=False)
        metrics = figures.metrics_of(silent)
        yield ModelRow(name=f"{model.name} (float), no search", kind="model", metrics=metrics)


def run(planned: Plan, store_folder: Path, out: Path, tell: Tell) -> BuildResult:
    """Carry out a plan: write a bundle for every target that gets one into `out`, return all figures.

    Raises the stage's own error; what was finished stays in the store, and the next call goes on from it.
    """
    began = time.monotonic()
    place = Place(planned.config, Path(planned.folder), Store(store_folder), tell)
    split = logs.split_log(place)
    facts = logs.facts(split)
    model = models.model(place, facts.items)
    trained = models.train(place, split, model, planned.config.seed)
    reference = figures.float_quality(place, split, model, trained)
    baselines = figures.baselines(place, split)
    noise = _noise_floor(place, split, model, reference)
    attributed = planned.config.quality.attribute_loss
    units = sensitivity.sensitivity(place, split, model, trained) if attributed else ()

    build = _Build(planned, place, split, model, trained, reference, out)
    build.prepare()
    targets = build.targets()
    of_float = _float_rows(place, split, model, trained, reference)
    rows = (*of_float, *baselines, *build.recipe_rows())
    return BuildResult(
        edgepack_version=__version__,
        name=planned.name,
        data=facts,
        model={
            "name": model.name,
            "history_length": planned.config.model.history_length,
            **models.search_sizes(planned.config.model),
            **planned.config.model.hyper,
        },
        protocol=figures.protocol(place),
        rows=rows,
        noise_floor_overlap_at_10=noise,
        curve=tuple(msgspec.json.decode((trained.path / "curve.json").read_bytes())),
        targets=targets,
        versions=versions(*_VERSIONED),
        stages_made=tuple(place.store.made),
        stages_kept=tuple(place.store.kept),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_s=time.monotonic() - began,
        sensitivity=units,
    )


def _noise_floor(place: Place, split: Kept, model: models.Model, reference: Kept) -> float | None:
    if not place.config.quality.noise_floor or model.comes_trained:
        return None
    other = models.train(place, split, model, place.config.seed + 1)
    return figures.overlap_of(reference, figures.float_quality(place, split, model, other))


class _Build:
    """The stages of one build with what they share; every method may be asked again at no cost."""

    def __init__(
        self,
        planned: Plan,
        place: Place,
        split: Kept,
        model: models.Model,
        trained: Kept,
        reference: Kept,
        out: Path,
    ) -> None:
        self.planned, self.place, self.split, self.model = planned, place, split, model
        self.trained, self.reference, self.out = trained, reference, out
        self.vocabulary = (split.path / "vocabulary.json").read_bytes()
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
            packed = ship.pack(self.place, self._shipment(), profile, budget, choice, self.out)
        else:
            # A bundle of an earlier build would look like this one's.
            (self.out / f"{profile.name}.edgepack").unlink(missing_ok=True)
        result = ship.result_of(profile, dropped, choice, packed, operators)
        return msgspec.structs.replace(result, examples=self._examples(profile, choice))

    def _examples(self, profile: Profile, choice: ship.Choice) -> tuple[Example, ...]:
        if choice.contender is None or choice.contender.candidate.quality is None:
            return ()
        made, quality = choice.contender.made, choice.contender.candidate.quality
        return examples.examples(self.place, self.split, self.reference, made, profile, quality)

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
        if RECIPES[recipe].trains and self.model.why_not_trained_further:
            reason = f"{self.model.name} cannot be trained further: {self.model.why_not_trained_further}"
            return Dropped(recipe=recipe, format=format, runtime="compression", reason=reason)
        if RECIPES[recipe].post_training is not None and self.model.onnx is not None:
            reason = f"{self.model.name} came as ONNX, which holds no Keras layers: use the recipe `ptq`"
            return Dropped(recipe=recipe, format=format, runtime="compression", reason=reason)
        compressed = models.compress(self.place, self.split, self.model, self.trained, recipe)
        made = artifacts.artifact(self.place, self.split, self.model, compressed, recipe, format)
        failure = figures.artifact_of(made)
        if isinstance(failure, str):
            return Dropped(recipe=recipe, format=format, runtime="conversion", reason=failure)
        return compressed, made

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
        quality = figures.quality(self.place, self.split, self.reference, made, engine)
        candidate = self._judged(profile, made, quality, timed)
        self.rows.setdefault((recipe, format), _recipe_row(candidate))
        return ship.Contender(candidate, made)

    def _ranked_on_target(self, profile: Profile, contender: ship.Contender) -> ship.Contender:
        engine = device_engine(profile)
        quality = figures.quality(self.place, self.split, self.reference, contender.made, engine)
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
            popularity=_popularity(self.split),
            query=logs.hashing(config.model),
            ngram_popularity=_ngram_popularity(self.split),
            history_length=config.model.history_length,
            item_count=facts.items,
            filter_seen=config.quality.filter_seen,
            k=config.quality.k,
        )

    def recipe_rows(self) -> Iterator[ModelRow]:
        """Yield one row a recipe: the float file, then each recipe's int8 file (or the nearest to it)."""
        for recipe in ("float", *self.planned.config.compress.recipes):
            for format in _SHOWN[recipe == "float"]:
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


def _popularity(split: Kept) -> "NDArray[np.float64]":
    import numpy as np

    from edgepack.data.split import load_split

    whole, _ = load_split(split.path)
    return np.bincount(whole.train.items, minlength=whole.item_count + 1).astype(np.float64)


def _ngram_popularity(split: Kept) -> "NDArray[np.float64] | None":
    import numpy as np

    from edgepack.data.split import load_split

    whole, _ = load_split(split.path)
    if whole.queries is None or whole.train.queries is None:
        return None
    return np.bincount(whole.queries[whole.train.queries].ravel()).astype(np.float64)
