"""`calibrate`: counts -> fit -> frozen model, with the errors that it makes on what it never saw."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from edgepack.calibrate import cross_runtime
from edgepack.calibrate import own as own_devices
from edgepack.calibrate.counts import (
    DEADLINE_S,
    arithmetic_all,
    count_all,
    read_arithmetic,
    read_counts,
)
from edgepack.calibrate.crossed import COVERAGE, FOLDS, calibrated, chosen
from edgepack.calibrate.evaluate import (
    Errors,
    Held,
    Unseen,
    by_arithmetic,
    chance,
    errors_by_own_rows,
    in_brief,
    leave_one_device_out,
    leave_one_net_out,
    outer_hold_out,
    transfer,
    twins,
)
from edgepack.calibrate.goals import DeviceErrors, Report, goals, median_size, missed, unseen_median
from edgepack.calibrate.rows import Row, joined, version_of_device, wanted
from edgepack.errors import ConfigError, DataError
from edgepack.latency.devices import OWN, Device, calibration_folder, device_named
from edgepack.latency.features import FEATURES, HIERARCHIES
from edgepack.latency.model import RUNTIME, DeviceModel, Latency, known_of, load_model, promised
from edgepack.latency.model import predict as predicted
from edgepack.latency.streams import STREAMS
from edgepack.report.tables import columns, to_json
from edgepack.runtimes import ncnn
from edgepack.store import write_atomic
from edgepack.tools import Tell
from edgepack.tools import arm as tools

SPLITS = 40
_SEED = 11
_SOURCE = "`edgepack calibrate`: fitted to counts.json and published.csv beside this file"


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
    """Count every network in `params`, and LiteRT's, that is not counted yet.

    Raises as `calibrate.counts.count_all` does.
    """
    folder = _writable()
    arithmetic_all(params, folder / "nets.json", tell)
    count_all(params, wanted(), folder / "counts.json", tell)
    if cross_runtime.uncounted():
        from edgepack.calibrate import litert_nets  # loads TensorFlow

        litert_nets.recount(tell)


def refit() -> DeviceModel:
    """Return all devices fitted to the counts that come along; raises DataError when there are none."""
    rows = _rows()
    choice = chosen(rows)
    return DeviceModel(
        source=_SOURCE,
        features=FEATURES,
        runtime=RUNTIME,
        coverage=COVERAGE,
        devices=dict(sorted(calibrated(rows, choice).items())),
        transfer=transfer(leave_one_device_out(rows, choice), errors_by_own_rows(rows, choice, seed=_SEED)),
    )


def freeze(model: DeviceModel) -> None:
    """Write the model to where predictions read it: a line for each device."""
    raw = msgspec.to_builtins(model, str_keys=True)
    devices = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(known)}" for name, known in raw.pop("devices").items()
    )
    text = f'{json.dumps(raw)[:-1]}, "devices": {{\n{devices}\n}}}}\n'
    write_atomic(_writable() / "model.json", text.encode())


def evaluate(tell: Tell, splits: int = SPLITS) -> Report:
    """Return the errors on networks and devices that a fit never saw, beside those of plain arithmetic."""
    rows = _rows()
    arithmetic = read_arithmetic(calibration_folder() / "nets.json")
    plain = [row._replace(features=np.array(arithmetic[row.net], np.float64)) for row in rows]
    nets = len({row.net for row in rows})

    def told(what: str, parts: Iterator[list[Held]], total: int) -> list[Held]:
        held: list[Held] = []
        for done, part in enumerate(parts, 1):
            held += part
            tell(what, done, total)
        return held

    by_counts = told("hold-out by counts", outer_hold_out(rows, splits=splits, seed=_SEED), splits)
    splits_of_plain = outer_hold_out(plain, splits=splits, seed=_SEED, predictor=by_arithmetic)
    by_plain = told("hold-out by arithmetic", splits_of_plain, splits)
    one_out = told("one network out, by counts", leave_one_net_out(rows), nets)
    one_out_plain = told("one network out, by arithmetic", leave_one_net_out(plain, by_arithmetic), nets)
    choice = chosen(rows)
    unseen = leave_one_device_out(rows, choice)
    own_rows = errors_by_own_rows(rows, choice, seed=_SEED)
    return Report(
        splits=splits,
        rows=len(rows),
        devices=_by_device(by_counts, by_plain, one_out, unseen, twins(rows)),
        hold_out=in_brief(by_counts),
        hold_out_arithmetic=in_brief(by_plain),
        leave_one_net_out=in_brief(one_out),
        leave_one_net_out_arithmetic=in_brief(one_out_plain),
        unseen_device_median=unseen_median(unseen, by_core=True),
        unseen_device_median_of_kind=unseen_median(unseen, by_core=False),
        transfer=transfer(unseen, own_rows),
        median_by_own_rows={known: median_size(errors) for known, errors in own_rows.items()},
        litert=cross_runtime.errors(load_model(None)),
    )


def _by_device(
    by_counts: list[Held],
    by_plain: list[Held],
    one_out: list[Held],
    unseen: list[Unseen],
    apart: dict[str, float],
) -> tuple[DeviceErrors, ...]:
    def of(found: list[Held], name: str) -> list[Held]:
        return [one for one in found if one.row.device.name == name]

    left_out = {one.device.name: one.by_core for one in unseen if one.by_core}
    devices = []
    # A device with hardly any rows may never have had one held out.
    for name in sorted({one.row.device.name for one in by_counts if of(by_plain, one.row.device.name)}):
        mine, device = of(by_counts, name), of(by_counts, name)[0].row.device
        counts, likely = in_brief(mine), chance(of(one_out, name))
        devices.append(
            DeviceErrors(
                device=name,
                core=device.core,
                kind=device.kind,
                clock_mhz=device.clock_mhz,
                is_old=2 * sum(one.row.is_old for one in mine) > len(mine),
                stands_in=device.stands_in,
                counts=counts,
                arithmetic=in_brief(of(by_plain, name)),
                unseen_median=median_size(left_out[name]) if name in left_out else None,
                chance=likely,
                twin_p90=apart.get(name),
                misses=missed(device.kind, counts, likely),
            )
        )
    return tuple(devices)


def predict(
    param: Path, input_shape: tuple[int, int, int], device_name: str, tell: Tell, own: Path = OWN
) -> Latency:
    """Count the network in `param` on the device's kernel stream and return its modelled latency.

    The device is known, or one of one's own in the folder `own`. Raises ConfigError for an unknown device,
    MeasureError when ncnn cannot run the network, ToolError when a part is missing and cannot be fetched.
    """
    device = device_named(device_name, own)
    model = load_model(own)
    known_of(model, device)  # raises before minutes of counting
    tools.fetch_ncnn(tell)
    tell(f"counting {param.name} on {device.core}", 0, 0)
    core, version = STREAMS[device.stream], version_of_device(device_name)
    region = ncnn.count(param, input_shape, core, HIERARCHIES, version, deadline_s=DEADLINE_S)
    return predicted(model, device, region)


class OwnDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device of one's own that was written: the runs behind it, and how far its interval reaches."""

    device: str
    core: str
    clock_mhz: int
    runs: int
    runtime: str
    interval_factor: float
    files: tuple[str, ...]


def add_device(device: Device, runs: Path, models: Path | None, folder: Path, tell: Tell) -> OwnDevice:
    """Count the `runs` of a device at hand, fit it beside its kin, and write it into `folder`.

    Raises DataError for runs that cannot be used, ConfigError when nothing is known of the device's kind, and
    what counting raises.
    """
    read = own_devices.read_runs(runs, models)
    model = load_model(None)
    known_of(model, device)
    rows = own_devices.counted(read, device, tell)
    known = own_devices.fitted(model, device, rows, read[0].runtime)
    return OwnDevice(
        device=device.name,
        core=device.core,
        clock_mhz=device.clock_mhz,
        runs=len(rows),
        runtime=known.runtime,
        interval_factor=round(float(np.exp(known.width)), 3),
        files=tuple(map(str, own_devices.write(folder, device, known))),
    )


def render_own(added: OwnDevice, as_json: bool) -> str:
    """Return what became of a device of one's own, as a line or as JSON."""
    if as_json:
        return to_json(added)
    runs = "1 run" if added.runs == 1 else f"{added.runs} runs"
    return (
        f"{added.device} ({added.core}, {added.clock_mhz} MHz): {runs} in {added.runtime}; "
        f"{COVERAGE:.0%} interval from / {added.interval_factor:.2f} to x {added.interval_factor:.2f}; "
        f"written to {' and '.join(added.files)}\n"
    )


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


_HEADING = (
    *("device", "core", "rows", "mean", "median", "p90", "worst", "covered", "chance"),
    *("by MACs: mean", "p90", "unseen", "twin p90", "misses"),
)


def render(report: Report | DeviceModel, as_json: bool) -> str:
    """Return the report, or a line about the model, as text or as JSON."""
    if isinstance(report, DeviceModel):
        told = f"{len(report.devices)} devices fitted; `--report` prints the errors\n"
        return to_json(report) if as_json else told
    if as_json:
        return to_json({**msgspec.structs.asdict(report), "goals": goals(report)})
    lines: list[tuple[str, ...]] = [_HEADING]
    for one in report.devices:
        core = one.core + "*" * one.stands_in + "+" * one.is_old
        errors = (*_cells(one.counts), _share(one.chance), *_of_plain(one.arithmetic))
        apart = (_maybe(one.unseen_median), _maybe(one.twin_p90))
        lines.append((one.device, core, *errors, *apart, " ".join(one.misses)))
    whole = (*_cells(report.hold_out), "", *_of_plain(report.hold_out_arithmetic))
    one_out = (*_cells(report.leave_one_net_out), "", *_of_plain(report.leave_one_net_out_arithmetic))
    lines += [("all", "", *whole, "", "", ""), ("one network out", "", *one_out, "", "", "")]
    of_litert = "\n".join(columns(table) for table in cross_runtime.tables(report.litert))
    return "\n".join(
        (
            columns(lines) + _legend(report) + _judged(report),
            f"From ncnn to LiteRT\n{of_litert}{cross_runtime.told(report.litert)}",
        )
    )


def _legend(report: Report) -> str:
    core, kind = np.exp(report.transfer.same_core), np.exp(report.transfer.same_kind)
    curve = ", ".join(f"{known}: {_share(error)}" for known, error in report.median_by_own_rows.items())
    certain = promised(FOLDS, round(report.rows / max(len(report.devices), 1)), COVERAGE)
    return (
        f"{report.splits} splits of the networks: a third held out; features, pull and intervals chosen on\n"
        "the rest (the bounds of the weights and the kernel streams with all rows in view: expect somewhat\n"
        f"more). Relative errors; `covered`: by the {COVERAGE:.0%} interval (CV+ by networks: at least\n"
        f"{certain:.0%} of networks drawn alike, however they err); `chance`: of a coverage so far off, by\n"
        "networks left out one by one, so that each row is tested once (two-sided binomial test); `by\n"
        "MACs`: from multiply-accumulates and weights alone; `unseen`: median when neither device nor\n"
        "network were known; `twin p90`: how far the published rows of the likest device with the same core\n"
        "are apart, one factor taken off. * emulated as another core, + rows older than any kernel that was\n"
        "counted.\n"
        f"A device never seen: median {_share(report.unseen_device_median)} by devices with its core, "
        f"{_share(report.unseen_device_median_of_kind)} by others of its kind;\n"
        f"its {COVERAGE:.0%} interval: / {core:.2f} to x {core:.2f}, and / {kind:.2f} to x {kind:.2f}.\n"
        f"Devices emulated as another core: {_of_cores(report, stands_in=True)}; as their own core: "
        f"{_of_cores(report, stands_in=False)}.\n"
        f"Median error on a device by how many rows of its own are known (its kin are): {curve}\n"
    )


def _of_cores(report: Report, *, stands_in: bool) -> str:
    found = [one.counts for one in report.devices if one.stands_in == stands_in]
    if not found:
        return "none"
    weights = [one.rows for one in found]
    mean, covered = (
        np.average([getattr(one, name) for one in found], weights=weights) for name in ("mean", "covered")
    )
    return f"mean {_share(mean)}, covered {_share(covered)}"


def _judged(report: Report) -> str:
    return "".join(f"{'met' if one.is_met else 'MISSED'}: {one.goal}: {one.found}\n" for one in goals(report))


def _of_plain(errors: Errors) -> tuple[str, str]:
    return _share(errors.mean), _share(errors.p90)


def _maybe(value: float | None) -> str:
    return "" if value is None else _share(value)


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
