"""Weights -> model files in every format, described."""

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from edgepack.errors import ConvertError
from edgepack.results import Artifact
from edgepack.stages import Place, versions
from edgepack.stages.configured import Model, onnx_source
from edgepack.stages.logs import CALIBRATION_ROWS, CALIBRATION_SEED, calibration
from edgepack.store import Kept, source_fingerprint, write_atomic


def artifact(place: Place, split: Kept, model: Model, compressed: Kept, recipe: str, format: str) -> Kept:
    """Convert to one format: the model file, and `artifact.json` or, if it cannot be, `failed.json`."""
    if format.startswith("tflite"):
        return _tflite(place, split, model, compressed, recipe, format)
    from edgepack.compress.recipes import known

    settings = known(place.config.compress.own)[recipe].calibrated
    exported = _exported(place, model, compressed)
    inputs = {
        "exported": exported.digest,
        "calibration": _calibration_key(place, split),
        "format": format,
        "recipe": recipe,
        "settings": msgspec.to_builtins(settings),
        "code": source_fingerprint("convert", "ranges.py"),
        "versions": versions("onnx", "onnxruntime", "numpy"),
    }

    def make(folder: Path) -> None:
        from edgepack.convert import onnx

        quantized = partial(
            onnx.quantized,
            method=settings.calibration,
            bias_correction=settings.bias_correction,
            range_correction=settings.range_correction,
            float_layers=settings.float_layers,
        )
        place.tell(f"converting {recipe} to {format}", 0, 0)
        float_onnx, rows = (exported.path / "model.onnx").read_bytes(), calibration(place, split)
        readable = f"onnx-{format.partition('-')[2]}"

        def convert() -> tuple[bytes, bytes]:
            data = quantized(float_onnx, readable, rows)
            return quantized(float_onnx, format, rows) if format != readable else data, data

        _keep(folder, recipe, format, convert)

    return place.store.produce("convert", inputs, make)


def _calibration_key(place: Place, split: Kept) -> list[object]:
    return [split.digest, place.config.model.history_length, CALIBRATION_ROWS, CALIBRATION_SEED]


def _exported(place: Place, model: Model, compressed: Kept) -> Kept:
    inputs = {
        "weights": compressed.digest,
        "model": model.identity,
        "code": source_fingerprint("convert"),
        "versions": versions("tensorflow", "tf2onnx", "onnx"),
    }

    def make(folder: Path) -> None:
        place.tell("exporting ONNX", 0, 0)
        write_atomic(folder / "model.onnx", _float_onnx(place, model, compressed))

    return place.store.produce("export", inputs, make)


def _float_onnx(place: Place, model: Model, compressed: Kept) -> bytes:
    if model.onnx is not None:
        data: bytes = onnx_source(model).data
        return data
    from edgepack.compress import steps
    from edgepack.convert import onnx

    serving = steps.restore(model.build, compressed.path, quantized=False)
    return onnx.export(serving, length=place.config.model.history_length)


def _saved_model(place: Place, model: Model) -> Kept:
    """Turn a model that came as ONNX into a SavedModel, once for all TFLite formats."""
    inputs = {"model": model.identity, "versions": versions("onnx2tf", "onnx", "tensorflow")}

    def make(folder: Path) -> None:
        from edgepack.convert import from_onnx

        place.tell("onnx2tf", 0, 0)
        from_onnx.saved_model(onnx_source(model), folder)

    return place.store.produce("saved-model", inputs, make)


def _tflite(place: Place, split: Kept, model: Model, compressed: Kept, recipe: str, format: str) -> Kept:
    inputs = {
        "weights": compressed.digest,
        "model": model.identity,
        "calibration": _calibration_key(place, split),
        "format": format,
        "recipe": recipe,
        "code": source_fingerprint("convert", "compress", "ranges.py"),
        "versions": versions("tensorflow", "tf_keras"),
    }

    def make(folder: Path) -> None:
        place.tell(f"converting {recipe} to {format}", 0, 0)

        def convert() -> tuple[bytes, bytes]:
            data = _tflite_bytes(place, split, model, compressed, recipe, format)
            return data, data

        _keep(folder, recipe, format, convert)

    return place.store.produce("convert", inputs, make)


def _tflite_bytes(
    place: Place, split: Kept, model: Model, compressed: Kept, recipe: str, format: str
) -> bytes:
    rows, length = calibration(place, split), place.config.model.history_length
    if model.onnx is not None:
        from edgepack.convert import from_onnx

        folder = _saved_model(place, model).path
        source = onnx_source(model)
        return from_onnx.convert(source, format, calibration=rows["history"], folder=folder)
    from edgepack.compress import steps
    from edgepack.compress.recipes import known
    from edgepack.convert import tflite

    float_layers = known(place.config.compress.own)[recipe].calibrated.float_layers
    serving = steps.restore(model.build, compressed.path, quantized="int8" in format)
    return tflite.convert(serving, format, length=length, calibration=rows, float_layers=float_layers)


def _keep(folder: Path, recipe: str, format: str, convert: Callable[[], tuple[bytes, bytes]]) -> None:
    """Write what `convert` returns: the file, and the file that its facts are read from."""
    try:
        data, readable = convert()
    except ConvertError as error:
        # A failure is a result too: the next build need not find it out again.
        write_atomic(folder / "failed.json", msgspec.json.encode(str(error)))
        return
    name = f"model.{format.partition('-')[0]}"
    write_atomic(folder / name, data)
    write_atomic(
        folder / "artifact.json", msgspec.json.encode(_described(name, data, readable, recipe, format))
    )


def _described(name: str, data: bytes, readable: bytes, recipe: str, format: str) -> Artifact:
    import hashlib

    import brotli

    from edgepack.convert import describe, promises

    facts = describe.describe(readable, format)
    return Artifact(
        recipe=recipe,
        format=format,
        file_name=name,
        model_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        deflate_bytes=len(zlib.compress(data, 9)),
        brotli_bytes=len(brotli.compress(data, quality=11)),
        table_bytes=facts.table_bytes,
        ops=facts.ops,
        zero_share=facts.zero_share,
        broken_promises=promises.broken(readable, format),
    )
