"""Runs inside an emulated arm64 CPython: `ncnn_guest.py PARAM WIDTH HEIGHT CHANNELS [BLOB ...]`.

With names of blobs it prints their shapes, "NAME W H" a line. Without, one inference to warm up, then one
marked for native/counter.c, set up as ncnn's own benchmark does: one thread, light mode, pooled allocators,
weights that are not read but zero, an input that is 0.01 everywhere.
"""

import ctypes
import gc
import mmap
import os
import sys
from collections.abc import Callable

sys.path.insert(0, "root/packages")  # before the folder of this file, where our own ncnn.py lies

import ncnn

_OPEN, _CLOSE = 0xD5032ABF, 0xD5032ADF
_RETURN = 0xD65F03C0
_PAGES: list[mmap.mmap] = []


def marker(hint: int) -> Callable[[], None]:
    """Return a function that executes one hint instruction."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(hint.to_bytes(4, "little") + _RETURN.to_bytes(4, "little"))
    _PAGES.append(page)
    return ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))


def main(param: str, width: str, height: str, channels: str, *shown: str) -> None:
    """Count one warm inference of the network in `param`, or tell the shapes of the blobs `shown`."""
    net = ncnn.Net()
    blobs, workspace = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()
    net.opt.num_threads = 1
    net.opt.lightmode = not shown
    net.opt.blob_allocator = blobs
    net.opt.workspace_allocator = workspace
    if net.load_param(param) != 0 or net.load_model(ncnn.DataReaderFromEmpty()) != 0:
        sys.exit("ncnn cannot load this network")
    image = ncnn.Mat(int(width), int(height), int(channels))
    image.fill(0.01)
    if shown:
        tell_shapes(net, image, shown)
    else:
        count(net, image)
    sys.stdout.flush()
    # The allocators would be gone before the blobs that they hold.
    os._exit(0)


def count(net: ncnn.Net, image: ncnn.Mat) -> None:
    """Run twice, and mark the second time."""
    begin, end = marker(_OPEN), marker(_CLOSE)
    gc.disable()
    for counted in (False, True):
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], image)
        if counted:
            begin()
        status, _ = extractor.extract(net.output_names()[-1])
        if counted:
            end()
        if status != 0:
            sys.exit("ncnn cannot run this network on this input")


def tell_shapes(net: ncnn.Net, image: ncnn.Mat, shown: tuple[str, ...]) -> None:
    """Print width and height of each blob."""
    extractor = net.create_extractor()
    extractor.input(net.input_names()[0], image)
    for name in shown:
        status, blob = extractor.extract(name)
        if status != 0:
            sys.exit(f"ncnn cannot compute the blob {name}")
        sys.stdout.write(f"{name} {blob.w} {blob.h}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
