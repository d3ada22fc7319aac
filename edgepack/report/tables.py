"""Short answers of the reading commands, as a table for people or JSON for programs."""

from typing import Any

import msgspec

from edgepack.latency.devices import Device
from edgepack.profiles import Budget, Profile
from edgepack.results import DataFacts, Measurement, ModelRow


def to_json(value: Any) -> str:
    """Return structs, lists or dicts of them as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def columns(rows: list[tuple[str, ...]]) -> str:
    """Return rows as left-aligned text columns; the first row is the heading."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def limits(budget: Budget) -> str:
    """Return a budget in one line: every limit that is set."""
    words = [
        f"{name} {getattr(budget, name):,}"
        for name in Budget.__struct_fields__
        if name not in ("max_drop", "max_group_drop") and getattr(budget, name) is not None
    ]
    words += [f"drop of {metric} {allowed:.1%}" for metric, allowed in budget.max_drop.items()]
    words += [f"group drop of {metric} {allowed:.1%}" for metric, allowed in budget.max_group_drop.items()]
    return ", ".join(words) or "none"


def target_rows(profiles: dict[str, Profile]) -> list[tuple[str, ...]]:
    """Return heading and one row per target: name, device, runtime, default budget."""
    rows: list[tuple[str, ...]] = [("target", "device", "runtime", "default budget")]
    for p in profiles.values():
        rows.append((p.name, p.description, f"{p.runtime.name} {p.runtime.version}", limits(p.budget)))
    return rows


def render_targets(profiles: dict[str, Profile], as_json: bool) -> str:
    """Return the target list."""
    return to_json(list(profiles.values())) if as_json else columns(target_rows(profiles))


def render_devices(devices: dict[str, Device], as_json: bool) -> str:
    """Return the list of single devices; as JSON with the source of every fact."""
    if as_json:
        return to_json(list(devices.values()))
    rows: list[tuple[str, ...]] = [("target", "core", "GHz", "L1D / L2 / last KiB", "latencies", "device")]
    for d in devices.values():
        caches = f"{d.l1d_kib} / {d.l2_kib} / {d.llc_kib}"
        known = "published" if d.rows else "of its kin"
        rows.append((d.name, d.core, f"{d.clock_mhz / 1000:g}", caches, known, d.description))
    return columns(rows)


def render_data(facts: DataFacts, as_json: bool) -> str:
    """Return what was read, what cleaning dropped and why, and how the log was split."""
    if as_json:
        return to_json(facts)
    lines = [
        f"{facts.source}: {facts.users:,} users, {facts.items:,} items, {facts.events:,} events kept",
        *[f"  dropped {count:,}: {rule}" for rule, count in facts.dropped.items()],
        f"split {facts.split}: {facts.test_users:,} test users, "
        f"{facts.cold_test_targets:,} test targets that training never saw (they count as misses)",
    ]
    return "\n".join(lines) + "\n"


def render_rows(rows: tuple[ModelRow, ...], as_json: bool) -> str:
    """Return the quality table."""
    if as_json:
        return to_json(rows)
    metrics = sorted({metric for row in rows for metric in row.metrics})
    table: list[tuple[str, ...]] = [("model", *metrics)]
    for row in rows:
        cells = [_estimate(row, metric) for metric in metrics]
        table.append((f"{row.name} ({row.note})" if row.note else row.name, *cells))
    return columns(table)


def render_measurement(measurement: Measurement, as_json: bool) -> str:
    """Return every number of one measurement with its provenance."""
    if as_json:
        return to_json(measurement)
    rows = [
        (n.name, n.spelled, n.provenance, f"{n.source}; {n.error}" if n.error else n.source)
        for n in measurement.numbers
    ]
    return columns([("figure", "value", "provenance", "how"), *rows])


def _estimate(row: ModelRow, metric: str) -> str:
    estimate = row.metrics.get(metric)
    if estimate is None:
        return "not run"
    if estimate.low is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"
