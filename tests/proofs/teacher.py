"""`make proof-teacher-NAME`: trains the float teacher of a public set and writes its figures to results/
teacher-NAME.md, its curve beside them. Where the configuration has a [teacher], it is that, an ensemble as
a rule, whose trainings are ranked one by one, too.

Resumable: the store under .edgepack/proofs keeps every finished epoch and stage. The set must have been
taken in before (`edgepack data NAME --from PATH`).
"""

import json
import re
import sys
from collections.abc import Iterator

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
        trained = trained_with(place, split)
        rows = (*_rows(place, split, trained), *figures.baselines(place, split))
    curves = b",\n".join((one.weights.path / "curve.json").read_bytes() for one in trained.members)
    (HERE / "results" / f"teacher-{name}.json").write_bytes(b"[" + curves + b"]\n")
    text = _rendered(name, place, split, trained, rows, told.cpu_s())
    (HERE / "results" / f"teacher-{name}.md").write_text(text)


def _rows(place: Place, split: Kept, trained: models.Trained) -> Iterator[ModelRow]:
    """Yield the row of the teacher, and where it is an ensemble that of each training."""
    members = trained.members if trained.others else ()
    of = f", mean of {len(members)}" if members else ""
    named = {f"{trained.model.name} (float{of})": trained}
    named |= {f"seed {place.config.seed + at}": one for at, one in enumerate(members)}
    for name, one in named.items():
        ranked = figures.float_quality(place, split, one)
        yield ModelRow(name=name, kind="model", metrics=figures.metrics_of(ranked))


def place_of(name: str, tell: Tell) -> Place:
    """Return the configuration of the teacher of `name` and the proofs' own store."""
    path = HERE / "teachers" / f"{name}.toml"
    STORE.mkdir(parents=True, exist_ok=True)
    return Place(config.load_config(path), path.parent, Store(STORE), tell)


def trained_with(place: Place, split: Kept, seeds: int | None = None) -> models.Trained:
    """Train the teacher, with so many `seeds` if they are given."""
    items = logs.facts(split).items
    model = configured.teacher(place, items) or configured.model(place, items)
    configured_seeds = place.config.teacher.seeds if place.config.teacher else 1
    return models.train_each(place, split, model, place.config.seed, seeds or configured_seeds)


def _rendered(
    name: str,
    place: Place,
    split: Kept,
    trained: models.Trained,
    rows: tuple[ModelRow, ...],
    cpu_s: str,
) -> str:
    found = ", ".join(f"{k} {v}" for k, v in versions("tensorflow", "tf_keras", "numpy").items())
    model = trained.model
    hyper, training = (msgspec.json.encode(x).decode() for x in (model.identity["hyper"], model.training))
    first, last = place.config.seed, place.config.seed + len(trained.others)
    seeds = f"the mean of seeds {first} to {last}" if trained.others else f"seed {first}"
    lines = [
        f"<!-- make proof-teacher-{name}; commit {commit()}; {found} -->",
        "",
        f"Float teacher: {model.name}, L = {model.length}, {hyper}, training {training}, {seeds}.",
        f"{cpu_s} CPU seconds; {'; '.join(_kept(place, split, one) for one in trained.members)}; "
        "test users were ranked once, at the end.",
        f"Judged on the {figures.protocol(place)}; 95 % intervals over all test users.",
        f"weights.npz: sha256 {_hashes(trained)}; curve: [teacher-{name}.json](teacher-{name}.json).",
        "",
        *HEAD,
        *(line(row) for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _hashes(trained: models.Trained) -> str:
    return ", ".join(f"`{sha256_of(one.weights.path / 'weights.npz')}`" for one in trained.members)


def _kept(place: Place, split: Kept, trained: models.Trained) -> str:
    """Say which epoch's weights remain and how they rank validation users, all of them if there was none."""
    records = msgspec.json.decode((trained.weights.path / "curve.json").read_bytes())
    if records:
        best = max(range(len(records)), key=lambda epoch: records[epoch]["valid_ndcg@10"])
        ranked = records[best]["valid_ndcg@10"]
        return f"{len(records)} epochs, epoch {best + 1} kept (validation NDCG@10 {ranked:.4f})"
    whole, _ = load_split(split.path)
    serving = models.trained_graphs(trained).serving
    chunks = fit.predict(serving, fed(whole, whole.valid, trained.model.length))
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
