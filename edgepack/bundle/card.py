"""The model card: what a person who opens the bundle wants to know first."""

from edgepack.bundle.manifest import Manifest
from edgepack.results import Number


def render(manifest: Manifest, data_source: str, licence: str) -> str:
    """Return the card as Markdown; exact figures only, so that it belongs to the content hash."""
    quality, artifact = manifest.quality, manifest.artifact
    lines = [
        f"# {manifest.name} for {manifest.target}",
        "",
        f"{artifact.format}, recipe `{artifact.recipe}`, {artifact.model_bytes:,} bytes "
        f"({artifact.deflate_bytes:,} deflated, {artifact.brotli_bytes:,} brotli); "
        f"runs in {manifest.runtime.name} {manifest.runtime.version}.",
        "",
        f"**Chosen because** {manifest.why}",
        "",
        "| figure | value | provenance |",
        "| --- | --- | --- |",
        *[_row(number) for number in manifest.figures],
        "",
        f"## Ranking quality ({quality.protocol}; {quality.users:,} users; {quality.runtime})",
        "",
        "| metric | value | 95 % interval | relative drop from float |",
        "| --- | --- | --- | --- |",
        *[_metric_row(manifest, metric) for metric in sorted(quality.metrics)],
        "",
        f"Overlap@10 with the float model: {quality.overlap_at_10:.3f}. {manifest.proof}",
        "",
        "## Training data",
        "",
        f"{data_source}. {licence}".strip(),
        "",
        "No user ids and no user histories are in this bundle; golden inputs are invented.",
        "",
    ]
    return "\n".join(lines)


def _row(number: Number) -> str:
    error = f"; {number.error}" if number.error else ""
    return f"| {number.name} | {number.spelled} | {number.provenance}: {number.source}{error} |"


def _metric_row(manifest: Manifest, metric: str) -> str:
    estimate = manifest.quality.metrics[metric]
    drop = manifest.quality.drops.get(metric)
    interval = "not computed" if estimate.low is None else f"{estimate.low:.4f} to {estimate.high:.4f}"
    loss = "—" if drop is None else f"{drop.value:+.2%} ({drop.low:+.2%} to {drop.high:+.2%})"
    return f"| {metric} | {estimate.value:.4f} | {interval} | {loss} |"
