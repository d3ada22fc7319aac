"""`make proof-seeds-NAME`: how far the lists of two float teachers agree that differ in their seed alone.

What a compressed model's overlap@10 is worth shows beside it: two trainings of the same model do not give
the same lists either. Trains the teacher of a public set (tests/proofs/teachers/NAME.toml) with its own seed
and the next, ranks all test users with each alone and writes results/seeds-NAME.md. Resumable, as
proof-teacher-NAME is.
"""

import sys

from edgepack.results import ModelRow
from edgepack.stages import figures, logs, versions
from edgepack.store import Kept
from edgepack.terminal import Terminal
from tests.proofs.dataset import HERE, commit
from tests.proofs.teacher import HEAD, line, place_of, trained_with


def main(name: str) -> None:
    """Train both, rank with both, write how they agree."""
    with Terminal() as terminal:
        place = place_of(name, terminal)
        split = logs.split_log(place)
        seeds = (place.config.seed, place.config.seed + 1)
        members = trained_with(place, split, len(seeds)).members
        ranked = [figures.float_quality(place, split, one) for one in members]
    found = ", ".join(f"{k} {v}" for k, v in versions("tensorflow", "tf_keras", "numpy").items())
    lines = [
        f"<!-- make proof-seeds-{name}; commit {commit()}; {found} -->",
        "",
        f"Overlap@10 of two float teachers that differ in their seed: {figures.overlap_of(*ranked):.3f}.",
        f"Judged on the {figures.protocol(place)}; 95 % intervals over all test users.",
        "",
        *HEAD,
        *(_line(seed, one) for seed, one in zip(seeds, ranked, strict=True)),
    ]
    (HERE / "results" / f"seeds-{name}.md").write_text("\n".join(lines) + "\n")


def _line(seed: int, ranked: Kept) -> str:
    return line(ModelRow(name=f"seed {seed}", kind="model", metrics=figures.metrics_of(ranked)))


if __name__ == "__main__":
    main(sys.argv[1])
