"""Counts of ncnn's benchmark networks, on every kernel stream and by several versions of ncnn.

A kernel stream is what a family of cores executes: ncnn asks the core's name and features and picks its
kernels by them. Counts are exact and are kept in one file beside the profiles; what it holds is not counted
again.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edgepack import proc
from edgepack.errors import DataError
from edgepack.latency.features import HIERARCHIES
from edgepack.latency.streams import STREAMS
from edgepack.runtimes import ncnn
from edgepack.runtimes.ncnn import Arithmetic
from edgepack.runtimes.qemu import Region
from edgepack.store import write_atomic
from edgepack.tools import Tell
from edgepack.tools import arm as tools

DEADLINE_S = 1_800

INPUT_SHAPES: dict[str, tuple[int, int, int]] = {
    "squeezenet": (227, 227, 3),
    "squeezenet_int8": (227, 227, 3),
    "alexnet": (227, 227, 3),
    "blazeface": (128, 128, 3),
    "squeezenet_ssd": (300, 300, 3),
    "squeezenet_ssd_int8": (300, 300, 3),
    "mobilenet_ssd": (300, 300, 3),
    "mobilenet_ssd_int8": (300, 300, 3),
    "mobilenet_yolo": (416, 416, 3),
    "mobilenetv2_yolov3": (352, 352, 3),
    "yolov4-tiny": (416, 416, 3),
    "nanodet_m": (320, 320, 3),
    "yolo-fastest-1.1": (320, 320, 3),
    "yolo-fastestv2": (352, 352, 3),
}
"""Input sizes (w, h, channels) of the published runs that are not 224 x 224 x 3."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """One network counted: `stream` is a key of STREAMS, `region` the second inference of its process."""

    net: str
    version: str
    stream: str
    region: Region


class _Counts(msgspec.Struct, frozen=True):
    source: str
    counts: list[Counted]


class Wanted(NamedTuple):
    """What is to be counted, in the order in which it is: a network, by an ncnn, on a kernel stream."""

    version: str
    stream: str
    net: str


def read_counts(path: Path) -> list[Counted]:
    """Return what `count_all` kept in `path`; nothing when there is no such file."""
    if not path.is_file():
        return []
    return msgspec.json.decode(path.read_bytes(), type=_Counts).counts


def count_all(params: Path, wanted: Iterable[Wanted], path: Path, tell: Tell) -> None:
    """Count what is `wanted`, of the networks in `params`, and not in `path`; keep each as it comes.

    Raises DataError when `params` holds no network, and what `runtimes.ncnn.count` raises.
    """
    files = {file.stem: file for file in sorted(params.glob("*.param"))}
    if not files:
        raise DataError(
            str(params),
            "holds no network file",
            allowed="NAME.param files, as in ncnn's benchmark folder",
            remedy="Give the folder that holds them.",
        )
    tools.fetch_ncnn(tell)
    found = {Wanted(one.version, one.stream, one.net): one for one in read_counts(path)}
    jobs = sorted({job for job in wanted if job.net in files} - set(found))
    pool = ThreadPoolExecutor(cpu_count())
    futures = [pool.submit(_count, files[job.net], job) for job in jobs]
    try:
        for done, future in enumerate(as_completed(futures), 1):
            one = future.result()
            found[Wanted(one.version, one.stream, one.net)] = one
            _keep(path, list(found.values()))
            tell(f"counted {one.net}, ncnn {one.version}, {one.stream}", done, len(jobs))
    finally:
        proc.abandon(pool, futures)


def arithmetic_all(params: Path, path: Path, tell: Tell) -> None:
    """Keep multiply-accumulates and weights of every network in `params` in `path`, as counts are kept."""
    found = read_arithmetic(path)
    files = [file for file in sorted(params.glob("*.param")) if file.stem not in found]
    tools.fetch_ncnn(tell)
    version = next(iter(tools.NCNN_WHEELS))
    for done, file in enumerate(files):
        tell(f"arithmetic of {file.stem}", done, len(files))
        found[file.stem] = ncnn.arithmetic(
            file, shape_of(file.stem), STREAMS["a76"], version, deadline_s=DEADLINE_S
        )
        rows = {net: found[net]._asdict() for net in sorted(found)}
        kept = {
            "source": "`edgepack calibrate --params DIR`: weights and shapes by ncnn itself",
            "nets": rows,
        }
        write_atomic(path, (json.dumps(kept, indent=1) + "\n").encode())


def read_arithmetic(path: Path) -> dict[str, Arithmetic]:
    """Return what `arithmetic_all` kept in `path`; nothing when there is no such file."""
    if not path.is_file():
        return {}
    nets = json.loads(path.read_bytes())["nets"]
    return {net: Arithmetic(**kept) for net, kept in nets.items()}


def shape_of(net: str) -> tuple[int, int, int]:
    """Return the input (w, h, channels) of the published runs of a network."""
    return INPUT_SHAPES.get(net, (224, 224, 3))


def _count(param: Path, job: Wanted) -> Counted:
    shape, core = shape_of(job.net), STREAMS[job.stream]
    region = ncnn.count(param, shape, core, HIERARCHIES, job.version, deadline_s=DEADLINE_S)
    return Counted(net=job.net, version=job.version, stream=job.stream, region=region)


def _keep(path: Path, counted: list[Counted]) -> None:
    rows: list[Any] = msgspec.to_builtins(sorted(counted, key=lambda c: (c.version, c.net, c.stream)))
    lines = ",\n".join(json.dumps(row) for row in rows)
    source = (
        "`edgepack calibrate --params DIR`: second inference of a network by an aarch64 wheel of ncnn, under "
        f"qemu-user {tools.locate().qemu.version} and edgepack/runtimes/native/counter.c"
    )
    write_atomic(path, f'{{"source": {json.dumps(source)}, "counts": [\n{lines}\n]}}\n'.encode())
