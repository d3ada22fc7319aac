"""`make proof-frontier-NAME`: how small a public set's recommender gets, and what its ranking pays for it.

Builds every tests/proofs/frontier/NAME-*.toml, which differ in student and recipes and share a teacher, and
writes each candidate as a point of size against NDCG@10 to results/frontier-NAME.md. Resumable: the store
under .edgepack/proofs keeps every finished stage and epoch. The set must have been taken in before
(`edgepack data NAME --from PATH`).
"""

import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from edgepack.results import BuildResult, Candidate
from tests.proofs.dataset import HERE, ROOT, commit

_REFERENCE = "tflite-float32"
_FORMATS = (
    "tflite-float32",
    "tflite-int8",
    "tflite-int8-f32scores",
    "onnx-qdq",
    "ort-qdq",
    "onnx-dynamic",
    "ort-dynamic",
)


class Point(NamedTuple):
    """One candidate of one build, and its instructions on each of the build's ARM targets."""

    build: str
    target: str
    candidate: Candidate
    chosen: bool
    instructions: dict[str, int]


def main(name: str) -> None:
    """Build all of `name` and write its frontier."""
    results = [_built(path.stem) for path in sorted((HERE / "frontier").glob(f"{name}-*.toml"))]
    (HERE / "results" / f"frontier-{name}.md").write_text(rendered(name, results))


def _built(name: str) -> BuildResult:
    out = ROOT / ".edgepack" / "proofs" / f"frontier-{name}"
    words = ["build", "-c", str(HERE / "frontier" / f"{name}.toml"), "--store", str(out.parent / "store")]
    done = subprocess.run([sys.executable, "-m", "edgepack", *words, "--out", str(out)], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    return msgspec.json.decode((out / "report.json").read_bytes(), type=BuildResult)


def points(results: Iterable[BuildResult]) -> list[Point]:
    """Return every ranked candidate once a file, the smallest first."""
    found = {}
    results = tuple(results)
    counts = _counts(results)
    for result in results:
        for target in result.targets:
            for one in target.candidates:
                shown = one.artifact.format in _FORMATS and one.quality is not None
                key = (one.artifact.sha256, target.platform)
                if shown and (key not in found or one.artifact.sha256 == target.chosen):
                    chosen = one.artifact.sha256 == target.chosen
                    found[key] = Point(
                        result.name, target.target, one, chosen, counts.get(one.artifact.sha256, {})
                    )
    return sorted(found.values(), key=lambda point: point.candidate.artifact.deflate_bytes)


def _counts(results: Iterable[BuildResult]) -> dict[str, dict[str, int]]:
    """Return the instructions of each file, by SHA-256 and target."""
    found: dict[str, dict[str, int]] = {}
    for target in (target for result in results for target in result.targets):
        for one in target.candidates:
            number = one.measurement.get("instructions") if one.measurement else None
            if number is not None and number.value is not None:
                found.setdefault(one.artifact.sha256, {})[target.target] = int(number.value)
    return found


def reference_bytes(found: Iterable[Point], ndcg: float) -> int:
    """Return the deflated bytes of the smallest float32 TFLite file whose NDCG@10 is at least `ndcg`."""
    floats = [
        point.candidate.artifact.deflate_bytes
        for point in found
        if point.candidate.artifact.format == _REFERENCE
        and point.candidate.quality is not None
        and point.candidate.quality.metrics["ndcg@10"].value >= ndcg
    ]
    return min(floats)


def rendered(name: str, results: list[BuildResult]) -> str:
    """Return the frontier as Markdown."""
    found = points(results)
    whole = {r.name: reference_bytes(found, r.rows[0].metrics["ndcg@10"].value) for r in results}
    floors = [r.noise_floor_overlap_at_10 for r in results if r.noise_floor_overlap_at_10 is not None]
    floor = f"{floors[0]:.3f}" if floors else f"[see there](seeds-{name}.md)"
    lines = [
        f"<!-- make proof-frontier-{name}; commit {commit()}; finished {results[-1].finished_at} -->",
        "",
        *_references(results, whole),
        f"Judged on the {results[0].protocol}; drops are paired, with 95 % intervals over all test users. "
        f"Overlap@10 of two teachers that differ in their seed: {floor}.",
        "",
        "| build | candidate | target | raw | deflated | brotli | table, raw | smaller | NDCG@10 "
        "| drop of it | overlap@10 | million instructions | ships |",
        "| --- " * 13 + "|",
        *(_line(point, whole[point.build]) for point in found),
    ]
    return "\n".join(lines) + "\n"


def _references(results: list[BuildResult], whole: dict[str, int]) -> list[str]:
    """Return what the drops and ratios of which builds are against, a line each; `whole` is by build."""
    builds: dict[str, list[str]] = {}
    for result in results:
        row = result.rows[0]
        ndcg, hits = row.metrics["ndcg@10"], row.metrics["hr@10"]
        told = f"{row.name.replace('teacher, ', '')}, NDCG@10 {ndcg.value:.4f} "
        told += f"\\[{ndcg.low:.4f}, {ndcg.high:.4f}\\], HR@10 {hits.value:.4f}; the smallest float32 TFLite "
        told += f"file that ranks as well takes {whole[result.name]:,} bytes deflated (level 9)"
        builds.setdefault(told, []).append(result.name)
    return [f"Reference of {', '.join(names)}: {told}.  " for told, names in builds.items()]


def _line(point: Point, whole: int) -> str:
    artifact, quality = point.candidate.artifact, point.candidate.quality
    assert quality is not None
    drop = quality.drops["ndcg@10"]
    cells = (
        point.build,
        f"{artifact.recipe} {artifact.format}",
        point.target,
        f"{artifact.model_bytes:,}",
        f"{artifact.deflate_bytes:,}",
        f"{artifact.brotli_bytes:,}",
        f"{artifact.table_bytes:,}",
        f"{whole / artifact.deflate_bytes:.1f} x",
        f"{quality.metrics['ndcg@10'].value:.4f}",
        f"{drop.value:.2%} \\[{drop.low:.2%}, {drop.high:.2%}\\]",
        f"{quality.overlap_at_10:.3f}",
        ", ".join(f"{t.removeprefix('android-')} {n / 1e6:.2f}" for t, n in point.instructions.items()),
        "yes" if point.chosen else "",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1])
