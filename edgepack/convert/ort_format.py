"""ONNX to onnxruntime's own file format, which a browser loads 2 to 3 times as fast.

`python -m edgepack.convert.ort_format SOURCE RESULT` is the child process that does it.
"""

import sys
from pathlib import Path

from edgepack import proc
from edgepack.convert.ort_header import ordered
from edgepack.errors import ConvertError

_DEADLINE_S = 300.0


def to_ort(data: bytes, *, folds_constants: bool) -> bytes:
    """Return an ONNX file as an .ort file, optimized but for no one processor.

    `folds_constants` computes beforehand what depends on weights alone, and stores its result.

    Raises ConvertError when onnxruntime cannot load the model.
    """
    with proc.temporary_folder("edgepack-ort-") as folder:
        source, result = Path(folder) / "model.onnx", Path(folder) / "model.ort"
        source.write_bytes(data)
        disabled = [] if folds_constants else ["ConstantFolding"]
        argv: list[str | Path] = [
            sys.executable,
            "-m",
            "edgepack.convert.ort_format",
            source,
            result,
            *disabled,
        ]
        done = proc.run(argv, deadline_s=_DEADLINE_S)
        if done.returncode != 0 or not result.is_file():
            last = (done.stderr_tail.splitlines() or ["it said nothing"])[-1].rstrip(".")
            raise ConvertError(
                "the ORT format",
                f"onnxruntime refused the ONNX model ({last})",
                remedy="Take the `onnx-` format of the same name instead.",
            )
        return ordered(result.read_bytes())


def main(source: str, result: str, *disabled: str) -> None:
    """Load `source`, optimize it without the optimizers named in `disabled`, and write `result`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = result
    # The level above would lay tensors out for this machine's processor.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled)
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
