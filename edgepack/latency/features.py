"""What of a count tells the time: instructions by class, and the lines that the caches lacked.

Of the lines from memory those count apart that follow one another: a prefetcher has most of them on the way.
Of those, again, the ones that no cache of a phone would hold: weights that are read once and gone.
"""

import math

import numpy as np
from numpy.typing import NDArray

from edgepack.latency.devices import Device
from edgepack.profiles import Cache
from edgepack.runtimes.qemu import Hierarchy, Region

_KIB = 1024
_LINE_BYTES = 64
L1D_KIB = (32, 64)
L2_KIB = (256, 512, 1024, 2048, 4096, 8192)
HIERARCHIES = tuple(
    Hierarchy(
        Cache(size_bytes=l1d * _KIB, ways=4), tuple(Cache(size_bytes=l2 * _KIB, ways=16) for l2 in L2_KIB)
    )
    for l1d in L1D_KIB
)
"""The caches that are played for every count, so that one run serves every device of a kernel stream."""

FEATURES = (
    "multiply_float",
    "multiply_int",
    "divide",
    "vector",
    "load",
    "load_vector",
    "store",
    "store_vector",
    "branch",
    "other",
    "l1i_misses",
    "l1d_misses",
    "llc_sequential",
    "llc_random",
    "streamed",
)


def features(region: Region, device: Device) -> NDArray[np.float64]:
    """Return float64 [len(FEATURES)] of a region counted with HIERARCHIES, for the caches of `device`."""
    l1d = _nearest(device.l1d_kib, L1D_KIB)
    behind = region.l2[l1d * len(L2_KIB) :]
    last = behind[_nearest(device.llc_kib, L2_KIB)]
    return np.array(
        [
            region.multiply_float,
            region.multiply_int,
            region.divide,
            region.vector,
            region.load,
            region.load_vector,
            region.store,
            region.store_vector,
            region.branch,
            region.other,
            region.l1i[0].misses,
            region.l1d[l1d].misses,
            last.sequential,
            last.misses - last.sequential,
            behind[len(L2_KIB) - 1].sequential,
        ],
        np.float64,
    )


def memory_bytes(region: Region) -> int:
    """Return what a region counted with HIERARCHIES fetched although 8 MiB of its data were at hand.

    It is 0 for a working set that such a cache holds.
    """
    return region.l2[len(L2_KIB) - 1].misses * _LINE_BYTES


def dtype(region: Region) -> str:
    """Return what a region multiplies most: "float" or "int8"."""
    return "int8" if region.multiply_int > region.multiply_float else "float"


def _nearest(kib: int, sizes: tuple[int, ...]) -> int:
    return min(range(len(sizes)), key=lambda i: abs(math.log(sizes[i] / kib)))
