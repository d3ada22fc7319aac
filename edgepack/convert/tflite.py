"""Converts a serving graph to TFLite: batch 1, static shapes, the same bytes each time."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack.convert import flatbuffer
from edgepack.convert.byte_codes import in_tflite
from edgepack.convert.float_scores import float_scores
from edgepack.convert.portable import portable
from edgepack.convert.scales_once import scales_once
from edgepack.errors import ConvertError, did_you_mean
from edgepack.keras2 import converter_error, keras, quantize_calibrated, quiet, tf
from edgepack.rows import Rows, part, row_count

Calibration = NDArray[np.int32] | Rows

_WRAPPER = "edgepack"


def convert(
    serving: Any,
    format: str,
    *,
    length: int,
    calibration: Calibration,
    float_layers: Collection[str] = (),
) -> bytes:
    """Return `serving` as a .tflite file of `format`, a key of FORMATS.

    `serving` is a Keras 2 model: `history` int32 [B, length] -> scores float32 [B, V + 1], wrapped for
    quantization or not. `calibration` is int32 [n, length] (or a dict of such, by input name): real
    histories from which the int8 formats take the ranges that no quantizer of the model knows. In these the
    layers named in `float_layers`, which must not be wrapped, keep float32 weights and results.

    Raises ConvertError when TensorFlow's converter cannot take the model, or `format` or a layer is unknown.
    """
    if format not in FORMATS:
        raise ConvertError(
            serving.name,
            f"'{format}' is no TFLite format",
            allowed=f"known are {', '.join(FORMATS)}",
            remedy="Choose one of them.",
        )
    converter = tf.lite.TFLiteConverter.from_keras_model(_batch_of_one(serving, length))
    # A scale per channel of a Dense layer would need FULLY_CONNECTED v12 in dynamic-range files, which
    # tflite-runtime 2.14 lacks, and would keep tied weights from being stored once in the others.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    FORMATS[format](converter, calibration)
    try:
        with quiet():
            if float_layers and "int8" in format:
                converted = _partly_quantized(converter, serving, float_layers)
            else:
                converted = converter.convert()
    except (converter_error(), RuntimeError, ValueError) as error:
        raise _refused(serving.name, format, error) from error
    model = flatbuffer.canonical(scales_once(in_tflite(portable(converted))))
    is_float_already = serving.output_names[0] in float_layers
    return float_scores(model) if format == "tflite-int8-f32scores" and not is_float_already else model


def _partly_quantized(converter: Any, serving: Any, float_layers: Collection[str]) -> bytes:
    converter._experimental_calibrate_only = True
    calibrated = converter.convert()
    results = flatbuffer.results(calibrated, serving.output_names[0])
    for layer in float_layers:
        if layer not in results:
            raise ConvertError(
                f"model '{serving.name}'",
                f"no operator of its file belongs to a layer '{layer}'",
                allowed=f"layers are {', '.join(results)}",
                remedy=f"{did_you_mean(layer, list(results))}Name one of them in float_layers.",
            )
    return quantize_calibrated(calibrated, [name for layer in float_layers for name in results[layer]])


def _refused(where: str, format: str, error: Exception) -> ConvertError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ConvertError(
        where,
        f"TensorFlow cannot convert it to {format}: {lines[0] if lines else type(error).__name__}",
        remedy="Replace the operation it names by one that TFLite has.",
    )


def _batch_of_one(serving: Any, length: int) -> Any:
    inputs = {}
    # A single input gets the contract's name, whatever its author called it.
    names = serving.input_names if len(serving.inputs) > 1 else ["history"]
    for name, tensor in zip(names, serving.inputs, strict=True):
        shape = [size or length for size in tensor.shape[1:]]
        inputs[name] = keras.Input(batch_shape=(1, *shape), dtype="int32", name=name)
    fed = list(inputs.values())
    return keras.Model(fed, serving(fed[0] if len(fed) == 1 else fed), name=_WRAPPER)


def _float32(converter: Any, calibration: Calibration) -> None:
    pass


def _float16(converter: Any, calibration: Calibration) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(converter: Any, calibration: Calibration) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _int8(converter: Any, calibration: Calibration) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: _rows(calibration)


def _rows(calibration: Calibration) -> Iterator[dict[str, NDArray[np.int32]]]:
    # By name: the converter's order of inputs is not the model's.
    for row in range(row_count(calibration)):
        single = part(calibration, row, row + 1)
        yield {name: np.ascontiguousarray(values, np.int32) for name, values in single.items()}


FORMATS: dict[str, Callable[[Any, Calibration], None]] = {
    "tflite-float32": _float32,
    "tflite-float16": _float16,
    "tflite-dynamic": _dynamic,
    "tflite-int8": _int8,
    "tflite-int8-f32scores": _int8,
}
