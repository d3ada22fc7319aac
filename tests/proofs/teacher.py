"""`make proof-teacher-NAME`: trains the float teacher of a public set and writes its figures to results/
teacher-NAME.md, its curve beside them. One that has a teacher itself learns from that one, trained first.

Resumable: the store under .edgepack/proofs keeps every finished epoch and stage. The set must have been
taken in before (`edgepack data NAME --from PATH`).
"""

import json
import re
import sys

import msgspec

from edgepack import config
from edgepack.data.split import load_split
from edgepack.data.types import rows as fed
from edgepack.results import Estimate, ModelRow
from edgepack.stages import Place, configured, figures, logs, models, versions
from edgepack.store import Kept, Store, sha256_of, write_atomic
from edgepack.terminal import Terminal
from edgepack.tools import Tell
from edgepack.train import fit, validation
from tests.proofs.dataset import HERE, ROOT, commit

_CPU = re.compile(r"(\d+) CPU s")
STORE = ROOT / ".edgepack" / "proofs" / "store"
_SHOWN = ("ndcg@10", "hr@10", "mrr")
HEAD = (
    "| model | " + " | ".join(metric.upper() for metric in _SHOWN) + " |",
    "| --- |" + " --- |" * len(_SHOWN),
)


class Told:
    """Passes progress on, and keeps the CPU seconds that trainings tell in a file, across processes."""

    def __init__(self, name: str, terminal: Terminal) -> None:
        self.path, self.terminal = STORE.parent / f"teacher-{name}.cpu.json", terminal
        self.seconds: dict[str, int] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show one line of progress."""
        if found := _CPU.search(what):
            self.seconds[what.partition(":")[0]] = int(found[1])
            write_atomic(self.path, json.dumps(self.seconds).encode())
        self.terminal(what, done, total)

    def cpu_s(self) -> str:
        """Return the CPU seconds of all trainings, in words when no file tells."""
        return f"{sum(self.seconds.values()):,}" if self.seconds else "not kept"


def main(name: str) -> None:
    """Train the teacher of `name`, rank with it and the baselines, write results and curve."""
    with Terminal() as terminal:
        told = Told(name, terminal)
        place = place_of(name, told)
        split = logs.split_log(place)
        model, trained = trained_with(place, split, place.config.seed)
        reference = figures.float_quality(place, split, models.Trained(model, trained))
        row = ModelRow(name=f"{model.name} (float)", kind="model", metrics=figures.metrics_of(reference))
        rows = (row, *figures.baselines(place, split))
    curve = (trained.path / "curve.json").read_bytes()
    (HERE / "results" / f"teacher-{name}.json").write_bytes(curve + b"\n")
    text = _rendered(name, place, split, model, trained, rows, told.cpu_s())
    (HERE / "results" / f"teacher-{name}.md").write_text(text)


def place_of(name: str, tell: Tell) -> Place:
    """Return the configuration of the teacher of `name` and the proofs' own store."""
    path = HERE / "teachers" / f"{name}.toml"
    STORE.mkdir(parents=True, exist_ok=True)
    return Place(config.load_config(path), path.parent, Store(STORE), tell)


def trained_with(place: Place, split: Kept, seed: int) -> models.Trained:
    """Train the model with `seed`; one that has a teacher itself learns from that one, of the same seed."""
    items = logs.facts(split).items
    model, teacher = configured.model(place, items), configured.teacher(place, items)
    if teacher is None:
        return models.Trained(model, models.train(place, split, model, seed))
    taught_by = models.Trained(teacher, models.train(place, split, teacher, seed))
    return models.Trained(model, models.distil(place, split, model, taught_by, seed))


def _rendered(
    name: str,
    place: Place,
    split: Kept,
    model: configured.Model,
    trained: Kept,
    rows: tuple[ModelRow, ...],
    cpu_s: str,
) -> str:
    found = ", ".join(f"{k} {v}" for k, v in versions("tensorflow", "tf_keras", "numpy").items())
    hyper = msgspec.json.encode(model.identity["hyper"]).decode()
    lines = [
        f"<!-- make proof-teacher-{name}; commit {commit()}; {found} -->",
        "",
        f"Float teacher: {model.name}, L = {place.config.model.history_length}, {hyper}, "
        f"training {msgspec.json.encode(place.config.training).decode()}, seed {place.config.seed}."
        f"{_taught(place)}",
        f"{cpu_s} CPU seconds; {_kept(place, split, model, trained)}; "
        "test users were ranked once, at the end.",
        f"Judged on the {figures.protocol(place)}; 95 % intervals over all test users.",
        f"weights.npz: sha256 `{sha256_of(trained.path / 'weights.npz')}`; "
        f"curve: [teacher-{name}.json](teacher-{name}.json).",
        "",
        *HEAD,
        *(line(row) for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _taught(place: Place) -> str:
    """Say who taught it and how, nothing where nobody did."""
    teacher = place.config.teacher
    if teacher is None:
        return ""
    hyper, training, how = (
        msgspec.json.encode(found).decode()
        for found in (teacher.hyper, teacher.training, place.config.distillation)
    )
    return f" Taught by {teacher.family}, {hyper}, training {training}; distillation {how}."


def _kept(place: Place, split: Kept, model: configured.Model, trained: Kept) -> str:
    """Say which epoch's weights remain and how they rank validation users, all of them if there was none."""
    records = msgspec.json.decode((trained.path / "curve.json").read_bytes())
    if records:
        best = max(range(len(records)), key=lambda epoch: records[epoch]["valid_ndcg@10"])
        ranked = records[best]["valid_ndcg@10"]
        return f"{len(records)} epochs, epoch {best + 1} kept (validation NDCG@10 {ranked:.4f})"
    whole, _ = load_split(split.path)
    serving = models.trained_graphs(models.Trained(model, trained)).serving
    chunks = fit.predict(serving, fed(whole, whole.valid, model.length))
    found = validation.rate(whole.valid, chunks, filter_seen=place.config.quality.filter_seen)
    return f"no epochs, the start kept as it is (validation NDCG@10 {found['valid_ndcg@10']:.4f})"


def line(row: ModelRow) -> str:
    """Return a model's figures as a row of a table."""
    cells = [_cell(row.metrics[m]) if m in row.metrics else row.note for m in _SHOWN]
    return f"| {row.name} | " + " | ".join(cells) + " |"


def _cell(found: Estimate) -> str:
    return f"{found.value:.4f} \\[{found.low:.4f}, {found.high:.4f}\\]"


if __name__ == "__main__":
    main(sys.argv[1])
