"""`check` and `inspect`: read a bundle again, judge it again, run its goldens again."""

import tempfile
from pathlib import Path

import msgspec

from edgepack.budget import judge
from edgepack.bundle import archive, goldens
from edgepack.bundle.manifest import Certificate
from edgepack.errors import ConfigError, EdgepackError, ToolError
from edgepack.profiles import Budget, decode_toml, merged
from edgepack.report import junit
from edgepack.report.tables import columns, limits, to_json
from edgepack.results import Measurement, Verdict, spelled
from edgepack.store import write_atomic

_COMPARED = ("instructions", "l2_misses", "peak_memory_bytes")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle's verdicts; `goldens` is "pass", "fail: …", "not run: …" or "skipped"."""

    path: str
    target: str
    content_hash: str
    verdicts: tuple[Verdict, ...]
    goldens: str
    changes: dict[str, tuple[float, float]]

    @property
    def passes(self) -> bool:
        """Whether every limit holds and the goldens came back (or were not asked for)."""
        within = all(verdict.status == "within" for verdict in self.verdicts)
        return within and self.goldens in ("pass", "skipped")


def check(
    path: Path, budget_file: Path | None, baseline: Path | None, *, run_goldens: bool = True
) -> Checked:
    """Verify, re-judge and re-run the bundle at `path`, and compare it with an older one.

    Raises BundleError when it is malformed or altered, ConfigError for a wrong budget file or a
    baseline of another target.
    """
    bundle = archive.read(path)
    manifest = bundle.manifest
    budget = manifest.budget
    if budget_file is not None:
        budget = merged(budget, decode_toml(budget_file, _BudgetFile).budget)
    measurement = Measurement(
        target=manifest.target,
        artifact_sha256=manifest.artifact.sha256,
        numbers=(*manifest.figures, *bundle.run.figures),
    )
    return Checked(
        path=str(path),
        target=manifest.target,
        content_hash=bundle.content_hash,
        verdicts=judge(
            budget,
            model_bytes=len(bundle.model),
            download_bytes=manifest.download_bytes,
            measurement=measurement,
            quality=manifest.quality,
        ),
        goldens=_goldens(bundle) if run_goldens else "skipped",
        changes=_changes(bundle, archive.read(baseline)) if baseline else {},
    )


class _BudgetFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    budget: Budget


def _goldens(bundle: archive.Bundle) -> str:
    from edgepack.runtimes.engines import HOST_ENGINES, Engine, scores

    manifest = bundle.manifest
    name = HOST_ENGINES.get(manifest.runtime.name, manifest.runtime.name)
    cases = bundle.goldens
    length, query_length = manifest.contract.history_length, manifest.contract.query_length
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / manifest.model_file
        model.write_bytes(bundle.model)
        try:
            found = scores(Engine(name), model, goldens.encoded(cases, length, query_length), deadline_s=120)
        except ToolError as error:
            return f"not run: {error}"
        except EdgepackError as error:
            return f"fail: {error}"
    wrong = goldens.failures(cases, found, manifest.contract.filter_seen, length)
    return f"fail: {wrong[0]}" if wrong else "pass"


def _changes(new: archive.Bundle, old: archive.Bundle) -> dict[str, tuple[float, float]]:
    if old.manifest.target != new.manifest.target:
        raise ConfigError(
            "baseline",
            f"is a bundle for {old.manifest.target}",
            allowed=f"it must be one for {new.manifest.target}",
            remedy="Give an older bundle of the same target.",
        )
    pairs = {"model_bytes": (float(len(old.model)), float(len(new.model)))}
    pairs["download_bytes"] = (float(old.manifest.download_bytes), float(new.manifest.download_bytes))
    before, after = ({n.name: n.value for n in b.manifest.figures} for b in (old, new))
    for name in _COMPARED:
        was, now = before.get(name), after.get(name)
        if was is not None and now is not None:
            pairs[name] = (float(was), float(now))
    for metric, estimate in new.manifest.quality.metrics.items():
        if metric in old.manifest.quality.metrics:
            pairs[metric] = (old.manifest.quality.metrics[metric].value, estimate.value)
    return pairs


def render(results: list[Checked], as_json: bool) -> str:
    """Return the verdict of every bundle, limit by limit."""
    if as_json:
        return to_json([{**msgspec.to_builtins(r), "passes": r.passes} for r in results])
    return "\n".join(_rendered(result) for result in results)


def _rendered(result: Checked) -> str:
    head = f"{result.path} ({result.target}): {'within budget' if result.passes else 'NOT within budget'}\n"
    rows: list[tuple[str, ...]] = [("limit", "allowed", "found", "verdict", "provenance")]
    rows += [
        (
            v.limit,
            _figure(v.allowed),
            _found(v),
            v.status,
            f"{v.provenance}; {v.error}" if v.error else v.provenance,
        )
        for v in result.verdicts
    ]
    tail = f"goldens: {result.goldens}\n"
    for name, (old, new) in result.changes.items():
        change = f" ({(new - old) / old:+.1%})" if old else ""
        tail += f"{name}: {_figure(old)} → {_figure(new)}{change}\n"
    return head + columns(rows) + tail


def _found(verdict: Verdict) -> str:
    if verdict.low is None or verdict.high is None:
        return _figure(verdict.found)
    return spelled(verdict.found, verdict.low, verdict.high)


def _figure(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def write_junit(results: list[Checked], path: Path) -> None:
    """Write the verdicts of all bundles as JUnit XML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    verdicts = tuple(
        msgspec.structs.replace(verdict, limit=f"{result.target}: {verdict.limit}")
        for result in results
        for verdict in (*result.verdicts, _goldens_verdict(result))
    )
    write_atomic(path, junit.render_verdicts("edgepack check", verdicts).encode())


def _goldens_verdict(result: Checked) -> Verdict:
    passed = result.goldens in ("pass", "skipped")
    return Verdict(
        limit="goldens",
        allowed=1,
        found=float(passed),
        margin=None,
        status="within" if passed else "over",
        provenance="measured",
        note=result.goldens,
    )


def render_bundle(path: Path, as_json: bool) -> str:
    """Return what the bundle holds and how it was judged."""
    bundle = archive.read(path)
    if as_json:
        return to_json({"content_hash": bundle.content_hash, "manifest": bundle.manifest, "run": bundle.run})
    manifest, artifact = bundle.manifest, bundle.manifest.artifact
    head = [
        ("bundle", f"{manifest.name} for {manifest.target} ({manifest.platform})"),
        ("content hash", bundle.content_hash),
        ("model", f"{artifact.format}, recipe {artifact.recipe}, {artifact.model_bytes:,} bytes"),
        (
            "",
            f"{artifact.deflate_bytes:,} deflated, {artifact.brotli_bytes:,} brotli; "
            f"tables {artifact.table_bytes:,}",
        ),
        ("input", ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in manifest.contract.inputs)),
        ("output", ", ".join(f"{t.name} {t.dtype} {list(t.shape)}" for t in manifest.contract.outputs)),
        ("runtime", f"{manifest.runtime.name} {manifest.runtime.version} ({manifest.runtime.licence})"),
        ("ops", ", ".join(artifact.ops)),
        ("download", f"{manifest.download_bytes:,} bytes"),
        ("overlap@10", f"{manifest.quality.overlap_at_10:.3f} with the float model"),
        ("proof", manifest.proof),
        ("chosen", manifest.why),
        ("budget", limits(manifest.budget)),
    ]
    figures = [("figure", "value", "provenance")] + [
        (n.name, n.spelled, f"{n.provenance}: {n.source}" + (f"; {n.error}" if n.error else ""))
        for n in (*manifest.figures, *bundle.run.figures)
    ]
    verdicts = [("limit", "verdict")] + [
        (v.limit, v.status) for v in (*manifest.verdicts, *bundle.run.verdicts)
    ]
    files = [("file", "bytes", "sha256")] + [
        (name, f"{entry.size_bytes:,}", entry.sha256) for name, entry in manifest.files.items()
    ]
    tables = [columns(list(table)) for table in (head, figures, verdicts, files)]
    if bundle.run.certificate is not None:
        tables.append(_certificate(bundle.run.certificate))
    return "\n".join(tables)


def _certificate(told: Certificate) -> str:
    rows: list[tuple[str, ...]] = [
        ("runtime", "overlap@10", "top-1 agreement", "largest difference", "Kendall tau", "")
    ]
    rows += [
        (
            row.runtime,
            _figure(row.overlap_at_10),
            _figure(row.top_1_agreement),
            _figure(row.largest_difference),
            _figure(row.kendall_tau),
            row.note,
        )
        for row in told.rows
    ]
    return f"parity of {told.users} users' ten best items with {told.reference}\n{columns(rows)}"
