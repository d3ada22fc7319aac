"""LiteRT for a JVM: reads a model from stdin, tells its tensors, then answers row after row.

Numbers are big-endian int32, as Java's DataInputStream reads them; bytes come after their number. First comes
the model; the reply is a text, a line `name dtype shape scale zero_point` a tensor, the output last. A row is
a number of values and the values for each input; its reply the bytes of the output, little-endian.
"""

import sys
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def number() -> int:
    return int.from_bytes(sys.stdin.buffer.read(4), "big")


def told(name: str, detail: dict[str, Any]) -> str:
    shape = ",".join(map(str, detail["shape"]))
    scale, zero_point = detail["quantization"]
    return f"{name} {np.dtype(detail['dtype']).name} {shape} {scale!r} {zero_point}"


def reply(data: bytes) -> None:
    sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()


def main() -> None:
    interpreter = Interpreter(model_content=sys.stdin.buffer.read(number()), num_threads=1)
    runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    tensors = [*sorted(inputs.items()), *outputs.items()]
    reply("\n".join(told(*tensor) for tensor in tensors).encode())
    while sys.stdin.buffer.peek(1):
        row = {}
        for name in sorted(inputs):
            values = np.frombuffer(sys.stdin.buffer.read(4 * number()), ">i4").astype(np.int32)
            row[name] = values[None, :]
        (scores,) = runner(**row).values()
        reply(scores.tobytes())


if __name__ == "__main__":
    main()
