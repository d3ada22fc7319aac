"""Runs inside an emulated armhf CPython: `guest.py MODEL INPUTS OUTPUTS ROWS COUNTED NAME:COLUMNS ...`.

Takes and leaves the same files as native/driver.c. With COUNTED it marks every invocation, and an empty
region after the last, for native/counter.c. It knows only the standard library, NumPy and tflite-runtime.
"""

import ctypes
import gc
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

sys.path.append("root/usr/lib/python3/dist-packages")

import numpy as np
from tflite_runtime.interpreter import Interpreter

BROKEN_CONTRACT = 3
_OPEN, _CLOSE = 0xE320F055, 0xE320F056
_RETURN = 0xE12FFF1E  # bx lr


def marker(hint: int, keep: list[mmap.mmap]) -> Callable[[], None]:
    """Return a function that executes one hint instruction of ARM (not Thumb) code."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(hint.to_bytes(4, "little") + _RETURN.to_bytes(4, "little"))
    keep.append(page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(None)(address)


def refuse(why: str) -> NoReturn:
    """End with the exit status of a model outside the contract."""
    sys.stderr.write(f"{why}\n")
    raise SystemExit(BROKEN_CONTRACT)


def read_inputs(details: list[dict[str, Any]], path: str, rows: int, specs: list[str]) -> dict[int, Any]:
    """Return {tensor index: int32 [rows, 1, columns]} after holding the model's inputs against `specs`."""
    if len(details) != len(specs):
        refuse(f"the model has {len(details)} inputs where {len(specs)} are fed")
    by_name = {d["name"].removeprefix("serving_default_").split(":")[0]: d for d in details}
    data, start, found = np.fromfile(path, "<i4"), 0, {}
    for spec in specs:
        name, columns = spec.split(":")
        detail = details[0] if len(details) == 1 else by_name.get(name)
        if detail is None:
            refuse(f"the model has no input called {name}")
        if detail["dtype"] != np.int32 or detail["shape"].tolist() != [1, int(columns)]:
            refuse(f"the input {name} is not int32 [1, {columns}]")
        end = start + rows * int(columns)
        found[detail["index"]] = data[start:end].reshape(rows, 1, int(columns))
        start = end
    return found


def main(model: str, inputs_path: str, outputs_path: str, row_count: str, counted: str, *specs: str) -> None:
    """Run every row, and mark each when `counted` is "1"."""
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    rows = int(row_count)
    inputs = read_inputs(interpreter.get_input_details(), inputs_path, rows, list(specs))
    outputs = interpreter.get_output_details()
    if len(outputs) != 1 or outputs[0]["dtype"] != np.float32:
        refuse("the model has not one float32 output")
    pages: list[mmap.mmap] = []
    begin, end = marker(_OPEN, pages), marker(_CLOSE, pages)
    # The C++ object below the Python class: fewer of Python's own instructions in the region.
    invoke = interpreter._interpreter.Invoke
    gc.disable()
    with Path(outputs_path).open("wb") as stream:
        for row in range(rows):
            for index, values in inputs.items():
                interpreter.set_tensor(index, values[row])
            if counted == "1":
                begin()
                invoke()
                end()
            else:
                invoke()
            stream.write(interpreter.get_tensor(outputs[0]["index"]).tobytes())
    begin()
    end()


if __name__ == "__main__":
    main(*sys.argv[1:])
