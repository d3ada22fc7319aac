"""`calibrate`: counts -> fit -> frozen model, with the errors that it makes on what it never saw."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from edgepack.calibrate.counts import (
    DEADLINE_S,
    STREAMS,
    arithmetic_all,
    count_all,
    read_arithmetic,
    read_counts,
)
from edgepack.calibrate.evaluate import (
    COVERAGE,
    Errors,
    Held,
    Spread,
    chosen_pull,
    in_brief,
    learning_curve,
    leave_one_device_out,
    leave_one_net_out,
    outer_hold_out,
)
from edgepack.calibrate.fit import OF_ARITHMETIC, OF_COUNTS, fit
from edgepack.calibrate.rows import Row, joined, version_of_device, wanted
from edgepack.errors import ConfigError, DataError
from edgepack.latency.devices import calibration_folder, device_named
from edgepack.latency.features import FEATURES, HIERARCHIES
from edgepack.latency.model import Calibrated, DeviceModel, Latency, load_model
from edgepack.latency.model import predict as predicted
from edgepack.report.tables import columns, to_json
from edgepack.runtimes import ncnn
from edgepack.store import write_atomic
from edgepack.tools import Tell
from edgepack.tools import arm as tools

SPLITS = 40
_CURVE_SPLITS = 5
_SEED = 11
_RUNTIME = "ncnn"
_SOURCE = "`edgepack calibrate`: fitted to counts.json and published.csv beside this file"


class DeviceErrors(msgspec.Struct, frozen=True, kw_only=True):
    """One device in the outer hold-out: by counts, by multiply-accumulates and weights alone, and when it
    was itself left out (median relative error; None where no other device has its core)."""

    device: str
    core: str
    counts: Errors
    arithmetic: Errors
    unseen_median: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `edgepack calibrate` prints: shares of one, 0.1 is ten per cent."""

    splits: int
    rows: int
    devices: tuple[DeviceErrors, ...]
    hold_out: Errors
    hold_out_arithmetic: Errors
    leave_one_net_out: Errors
    leave_one_net_out_arithmetic: Errors
    unseen_device_median: float
    median_by_own_rows: dict[int, float]


def calibrate(params: Path | None, tell: Tell, *, shows_errors: bool) -> Report | DeviceModel:
    """Count what `params` has and is not counted, then freeze a new fit, or tell the errors of such fits.

    Raises DataError, ConfigError, MeasureError or ToolError as `recount`, `refit` and `freeze` do.
    """
    if params is not None:
        recount(params, tell)
    if shows_errors:
        return evaluate(tell)
    model = refit()
    freeze(model)
    return model


def recount(params: Path, tell: Tell) -> None:
    """Count every network in `params` that is not counted yet. Raises as `calibrate.counts.count_all`."""
    folder = _writable()
    arithmetic_all(params, folder / "nets.json", tell)
    count_all(params, wanted(), folder / "counts.json", tell)


def refit() -> DeviceModel:
    """Return all devices fitted to the counts that come along; raises DataError when there are none."""
    rows = _rows()
    pull, residuals = chosen_pull(rows)
    spread = Spread.of(rows, residuals)
    fitted = fit(rows, pull=pull)
    devices = {}
    for name, weights in sorted(fitted.devices.items()):
        mine = [row for row in rows if row.device.name == name]
        counted = [row.instructions for row in mine]
        devices[name] = Calibrated(
            weights=tuple(float(f"{weight:.6g}") for weight in weights),
            width=round(spread.quantile * spread.scales[name], 6),
            widest=round(spread.worst * spread.scales[name], 6),
            rows=len(mine),
            least=min(counted),
            most=max(counted),
        )
    return DeviceModel(
        source=_SOURCE, features=FEATURES, runtime=_RUNTIME, coverage=COVERAGE, devices=devices
    )


def freeze(model: DeviceModel) -> None:
    """Write the model to where predictions read it."""
    text = msgspec.json.format(msgspec.json.encode(model), indent=1) + b"\n"
    write_atomic(_writable() / "model.json", text)


def evaluate(tell: Tell, splits: int = SPLITS) -> Report:
    """Return the errors on networks and devices that a fit never saw, beside those of plain arithmetic."""
    rows = _rows()
    arithmetic = read_arithmetic(calibration_folder() / "nets.json")
    plain = [row._replace(features=np.array(arithmetic[row.net], np.float64)) for row in rows]
    held: dict[str, list[Held]] = {"counts": [], "arithmetic": []}
    for name, given, bounds in (("counts", rows, OF_COUNTS), ("arithmetic", plain, OF_ARITHMETIC)):
        found_splits = outer_hold_out(given, splits=splits, seed=_SEED, bounds=bounds)
        for done, found in enumerate(found_splits, 1):
            held[name] += found
            tell(f"hold-out by {name}", done, splits)
    unseen = leave_one_device_out(rows)
    # A device with hardly any rows may never have had one held out.
    in_both = set.intersection(*({one.row.device.name for one in found} for found in held.values()))
    return Report(
        splits=splits,
        rows=len(rows),
        devices=tuple(_device_errors(name, held, unseen) for name in sorted(in_both)),
        hold_out=in_brief(held["counts"]),
        hold_out_arithmetic=in_brief(held["arithmetic"]),
        leave_one_net_out=in_brief(leave_one_net_out(rows)),
        leave_one_net_out_arithmetic=in_brief(leave_one_net_out(plain, OF_ARITHMETIC)),
        unseen_device_median=float(np.median(np.abs(np.concatenate(list(unseen.values()))))),
        median_by_own_rows=learning_curve(rows, splits=_CURVE_SPLITS, seed=_SEED),
    )


def _device_errors(name: str, held: dict[str, list[Held]], unseen: dict[str, list[float]]) -> DeviceErrors:
    mine = {kind: [one for one in found if one.row.device.name == name] for kind, found in held.items()}
    return DeviceErrors(
        device=name,
        core=mine["counts"][0].row.device.core,
        counts=in_brief(mine["counts"]),
        arithmetic=in_brief(mine["arithmetic"]),
        unseen_median=float(np.median(np.abs(unseen[name]))) if name in unseen else None,
    )


def predict(param: Path, input_shape: tuple[int, int, int], device_name: str, tell: Tell) -> Latency:
    """Count the network in `param` on the device's kernel stream and return its modelled latency.

    Raises ConfigError for an unknown device, MeasureError when ncnn cannot run the network, ToolError when
    a part is missing and cannot be fetched.
    """
    device = device_named(device_name)
    model = load_model()
    tools.fetch_ncnn(tell)
    tell(f"counting {param.name} on {device.core}", 0, 0)
    core, version = STREAMS[device.stream], version_of_device(device_name)
    region = ncnn.count(param, input_shape, core, HIERARCHIES, version, deadline_s=DEADLINE_S)
    return predicted(model, device, region)


def _writable() -> Path:
    folder = calibration_folder()
    if not os.access(folder, os.W_OK):
        raise ConfigError(
            str(folder),
            "cannot be written to",
            remedy="Calibrate in a checkout of your own, or as its owner.",
        )
    return folder


def _rows() -> list[Row]:
    path = calibration_folder() / "counts.json"
    rows = joined(read_counts(path))
    if not rows:
        raise DataError(
            str(path),
            "holds no counts of a published network",
            remedy="Run `edgepack calibrate --params DIR` with the network files of ncnn's benchmark.",
        )
    return rows


def render(report: Report | DeviceModel, as_json: bool) -> str:
    """Return the report, or a line about the model, as text or as JSON."""
    if as_json:
        return to_json(report)
    if isinstance(report, DeviceModel):
        return f"{len(report.devices)} devices fitted; `--report` prints the errors\n"
    heading = ("device", "core", "rows", "mean", "median", "p90", "worst", "covered", "by MACs", "unseen")
    lines: list[tuple[str, ...]] = [heading]
    for one in report.devices:
        unseen = "" if one.unseen_median is None else _share(one.unseen_median)
        lines.append((one.device, one.core, *_cells(one.counts), _share(one.arithmetic.mean), unseen))
    overall = (*_cells(report.hold_out), _share(report.hold_out_arithmetic.mean))
    lines.append(("all", "", *overall, _share(report.unseen_device_median)))
    net_out = (*_cells(report.leave_one_net_out), _share(report.leave_one_net_out_arithmetic.mean), "")
    lines.append(("leave one net out", "", *net_out))
    told = (
        f"{report.splits} splits of the networks: a third held out, pull and intervals chosen on the rest\n"
        "(features, bounds and streams were chosen with all rows in view: expect somewhat more). Relative\n"
        f"errors; `covered` by the {COVERAGE:.0%} interval; `by MACs`: mean error by multiply-accumulates\n"
        "and weights alone; `unseen`: median error when the device itself was left out.\n"
    )
    curve = ", ".join(f"{known}: {_share(error)}" for known, error in report.median_by_own_rows.items())
    told += f"Median error on a device by how many rows of its own are known (its kin are): {curve}\n"
    return columns(lines) + told


def _cells(errors: Errors) -> Iterable[str]:
    shares = (errors.mean, errors.median, errors.p90, errors.worst, errors.covered)
    return (str(errors.rows), *(_share(share) for share in shares))


def _share(value: float) -> str:
    return f"{value:.1%}"


def render_latency(latency: Latency, as_json: bool) -> str:
    """Return a prediction as a line or as JSON."""
    if as_json:
        return to_json(latency)
    value = "no estimate" if latency.value_ms is None else f"{latency.value_ms:,.3g} ms"
    interval = f"[{latency.low_ms:,.3g}, {latency.high_ms:,.3g}] ms"
    return f"{latency.device}: {value} {interval} ({latency.provenance}; {latency.note})\n"
