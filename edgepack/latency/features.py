"""What of a count tells the time: instructions by class, and the lines that each level of caches lacked."""

import math

import numpy as np
from numpy.typing import NDArray

from edgepack.latency.devices import Device
from edgepack.profiles import Cache
from edgepack.runtimes.qemu import Hierarchy, Region

_KIB = 1024
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
    "scalar",
    "l1d_misses",
    "l2_misses",
    "llc_misses",
)


def features(region: Region, device: Device) -> NDArray[np.float64]:
    """Return float64 [len(FEATURES)] of a region counted with HIERARCHIES, for the caches of `device`."""
    l1d = _nearest(device.l1d_kib, L1D_KIB)
    second, last = (l1d * len(L2_KIB) + _nearest(kib, L2_KIB) for kib in (device.l2_kib, device.llc_kib))
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
            region.branch + region.other,
            region.l1d[l1d].misses,
            region.l2[second].misses,
            region.l2[last].misses,
        ],
        np.float64,
    )


def _nearest(kib: int, sizes: tuple[int, ...]) -> int:
    return min(range(len(sizes)), key=lambda i: abs(math.log(sizes[i] / kib)))
