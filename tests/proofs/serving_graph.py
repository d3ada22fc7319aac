"""`python -m tests.proofs.serving_graph`: instructions of SASRec's serving graphs, counted on emulated cores.

Untrained weights, every one disturbed so that none folds away: counts depend on shapes alone, but for some
hundred instructions. Resumable: a counted graph is kept under .edgepack/proofs until the sources change.
"""

import json
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from edgepack.models import folding, sasrec
from edgepack.models.graphs import transfer

from edgepack.compress import qat
from edgepack.convert import tflite
from edgepack.keras2 import deterministic
from edgepack.profiles import load_profiles
from edgepack.runtimes import arm
from edgepack.store import source_fingerprint
from tests.proofs.dataset import HERE, ROOT, commit

TARGETS = ("android-arm64-low", "android-arm64-mid", "android-arm64-high")
CORES = "A53 | A72 | A76"
INT8 = "tflite-int8-f32scores"
KEPT = ROOT / ".edgepack" / "proofs" / "serving-graph.json"
MOVIELENS, BEAUTY = (3_416, 50), 54_542


def cells() -> Iterator[dict[str, Any]]:
    """Yield what is counted."""
    for format in (INT8, "tflite-float32"):
        for folded in (False, True):
            yield cell(*MOVIELENS, 64, 2, "layer", folded=folded, format=format)
    for width, blocks, norm in ((64, 1, "layer"), (32, 2, "layer"), (32, 1, "layer"), (32, 2, "none")):
        yield cell(*MOVIELENS, width, blocks, norm)
    for width, blocks, norm in ((32, 1, "layer"), (32, 1, "none"), (24, 2, "layer"), (24, 1, "none")):
        yield cell(BEAUTY, 20, width, blocks, norm)
    yield cell(BEAUTY, 50, 24, 1, "layer")


def cell(
    items: int, length: int, width: int, blocks: int, norm: str, folded: bool = True, format: str = INT8
) -> dict[str, Any]:
    """Return one graph's description."""
    return {
        "items": items,
        "length": length,
        "format": format,
        "folded": folded,
        "hyper": {"width": width, "ffn_width": width, "blocks": blocks, "norm": norm},
    }


def model_file(spec: dict[str, Any]) -> bytes:
    """Return the .tflite file of a cell, quantized after training where it is int8."""
    deterministic(1)
    items, length = spec["items"], spec["length"]
    graphs = sasrec.build(items, length, **spec["hyper"])
    generator = np.random.default_rng(0)
    for variable in graphs.training.variables:
        variable.assign(
            variable + generator.normal(0, 0.1 if variable.shape.rank == 1 else 0.02, variable.shape)
        )
    transfer(graphs.training, graphs.serving, table=graphs.table)
    serving = (folding.shipped(graphs) if spec["folded"] else graphs).serving
    histories = generator.integers(1, items + 1, (16, length)).astype(np.int32)
    if spec["format"] == INT8:
        serving = qat.wrap_tables(serving, ("scores",))
    return tflite.convert(serving, spec["format"], length=length, calibration=histories)


def counted(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the bytes of a cell's file and its instructions on each core."""
    data, profiles = model_file(spec), load_profiles()
    row = {"history": np.arange(1, spec["length"] + 1, dtype=np.int32)[None]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(data)
        cores = [profiles[name].emulation for name in TARGETS]
        warm = [arm.count(path, row, core, deadline_s=600).warm for core in cores if core is not None]
    return {
        "bytes": len(data),
        "deflated": len(zlib.compress(data, 9)),
        "counts": [w.instructions for w in warm],
    }


def row(spec: dict[str, Any], found: dict[str, Any]) -> str:
    """Return a line of the table."""
    hyper, form = spec["hyper"], "folded" if spec["folded"] else "as trained"
    facts = (f"{spec['items']:,}", spec["length"], hyper["width"], hyper["blocks"], hyper["norm"], form)
    figures = (f"{found['bytes']:,}", f"{found['deflated']:,}", *(f"{count:,}" for count in found["counts"]))
    return "| " + " | ".join(map(str, (*facts, spec["format"], *figures))) + " |"


def main() -> None:
    """Count what is not counted yet and write tests/proofs/results/serving-graph.md."""
    code = source_fingerprint("models", "convert", "compress")
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    rows = []
    for spec in cells():
        key = json.dumps([code, spec])
        if key not in kept:
            kept[key] = counted(spec)
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            KEPT.write_text(json.dumps(kept))
        rows.append(row(spec, kept[key]))
        sys.stderr.write(f"{rows[-1]}\n")
    names = f"| V | L | d | blocks | norm | form | format | bytes | deflated | {CORES} |"
    head = (
        f"<!-- python -m tests.proofs.serving_graph; commit {commit()} -->\n\n{__doc__.split(': ', 1)[1]}\n"
    )
    rule = "|" + " --- |" * 12
    (HERE / "results" / "serving-graph.md").write_text("\n".join((head, names, rule, *rows, "")))


if __name__ == "__main__":
    main()
