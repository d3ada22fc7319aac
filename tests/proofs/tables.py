"""What each way to store the item table costs before any retraining: bytes against NDCG@10 and overlap@10.

python -m tests.proofs.tables WEIGHTS.npz SPLIT: the weights that a build's `train` stage left of SASRec,
and the folder of its `data` stage. Writes a Markdown table; all test users, full ranking, float activations.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from edgepack.models import sasrec
from edgepack.models.graphs import Graphs, transfer
from numpy.typing import NDArray

from edgepack.compress.recipes import Band, Grid
from edgepack.compress.tables import grid
from edgepack.compress.weights import load_weights
from edgepack.data.split import load_split
from edgepack.data.types import Split, padded
from edgepack.evaluate.ranking import Evaluation, evaluate, overlap
from edgepack.levels import deflated_bytes
from edgepack.train.fit import predict

Array = NDArray[np.float32]

_LENGTH = 50
_CENTROIDS = 256
_BANDS = {
    "head 1/4 fine, rest x2": (Band(share=0.25, multiple=1), Band(share=0.75, multiple=2)),
    "head 1/4, middle 1/4 x2, tail x4": (
        Band(share=0.25, multiple=1),
        Band(share=0.25, multiple=2),
        Band(share=0.5, multiple=4),
    ),
}


class Stored(NamedTuple):
    """A way to store a table: its name, the rows it stands for and the bytes it takes in a download."""

    name: str
    rows: Array
    nbytes: int


def formats(values: Array, popularity: NDArray[np.int64]) -> Iterator[Stored]:
    """Yield every format of the table `values` float32 [V + 1, d]."""
    for bits, levels in (("8", 127), ("4", 7), ("3", 3), ("1.6", 1)):
        yield _on_grid(f"grid, {bits} bits", values, Grid(levels=levels))
    for name, bands in _BANDS.items():
        yield _on_grid(f"4 bits, {name}", values, Grid(levels=7), grid.row_multiples(popularity, bands))
    left, sizes, axes = np.linalg.svd(values, full_matrices=False)
    for rank in (32, 16):
        yield Stored(
            f"rank {rank}, float32", (left[:, :rank] * sizes[:rank]) @ axes[:rank], 4 * rank * len(values)
        )
    for step in (1.0, 1.5, 2.0):
        same = Grid(step=step)
        yield _on_grid(f"grid of {step} deviations", values, same)
        turned = left * sizes
        # The step is a share of the table's deviation, which a rotation about 0 leaves as it is.
        kept = _on_grid(f"principal axes, grid of {step} deviations", turned, same)
        yield kept._replace(rows=kept.rows @ axes)
    for parts in (16, 8, 4):
        yield _coded(values, parts)


def _on_grid(name: str, values: Array, chosen: Grid, multiples: NDArray[np.int32] | None = None) -> Stored:
    rule = grid.rule_of(values, chosen, multiples)
    counts = np.rint(values / rule.steps).clip(-rule.levels, rule.levels)
    stored = np.rint(counts * rule.steps / rule.steps.min()).astype(np.int8)
    return Stored(name, (counts * rule.steps).astype(np.float32), deflated_bytes(stored))


def _coded(values: Array, parts: int) -> Stored:
    """Product quantization (Jégou et al., 2011): `parts` codes of a byte, int8 centroids by k-means."""
    rows, nbytes = [], 0
    for piece in np.split(values, parts, axis=1):
        centroids, codes = _k_means(piece)
        rows.append(centroids[codes])
        counts = np.rint(centroids / np.abs(centroids).max() * 127).astype(np.int8)
        nbytes += deflated_bytes(codes.astype(np.uint8)) + deflated_bytes(counts)
    return Stored(f"product codes, {parts} of 256", np.concatenate(rows, axis=1), nbytes)


def _k_means(points: Array, rounds: int = 15) -> tuple[Array, NDArray[np.int64]]:
    draw = np.random.default_rng(0)
    centroids = points[draw.choice(len(points), _CENTROIDS, replace=False)].copy()
    for _ in range(rounds):
        codes = ((centroids**2).sum(axis=1) - 2 * points @ centroids.T).argmin(axis=1)
        for code in np.unique(codes):
            centroids[code] = points[codes == code].mean(axis=0)
    return centroids, codes


def _quality(graphs: Graphs, rows: Array, split: Split) -> Evaluation:
    graphs.training.get_layer(graphs.table).set_weights([rows])
    transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)
    return evaluate(predict(graphs.serving, padded(split.test.history, _LENGTH)), split.test)


def main(weights: Path, folder: Path) -> None:
    """Write the frontier to stdout."""
    split, _ = load_split(folder)
    graphs: Any = sasrec.build(split.item_count, _LENGTH)
    load_weights(graphs.training, weights)
    values = graphs.training.get_layer(graphs.table).get_weights()[0]
    popularity = np.bincount(split.train.items, minlength=split.item_count + 1)
    float_quality = _quality(graphs, values, split)
    base = float_quality.mean("ndcg@10")
    say("| table | deflated bytes | bits a weight | NDCG@10 | of the float model's | overlap@10 |")
    say("| --- | ---: | ---: | ---: | ---: | ---: |")
    say(f"| float32 | {deflated_bytes(values):,} | 32 | {base:.4f} | | 1 |")
    for stored in formats(values, popularity):
        found = _quality(graphs, stored.rows, split)
        ndcg, same = found.mean("ndcg@10"), float(overlap(found.top10, float_quality.top10).mean())
        bits, kept = 8 * stored.nbytes / values.size, ndcg / base
        say(f"| {stored.name} | {stored.nbytes:,} | {bits:.2f} | {ndcg:.4f} | {kept:.1%} | {same:.3f} |")


def say(line: str) -> None:
    """Write one line to stdout."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
