"""The one switch to Keras 2, set before TensorFlow loads; everyone takes `keras` and `tf` from here.

TF-MOT understands Keras 2 only (tf_keras); Keras 3 models are taken in by `convert.intake`.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "tensorflow" not in sys.modules:
    # Operations are otherwise reordered by oneDNN from one CPU model to the next.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what TensorFlow's C++ parts write to stderr, which no log level stops, off the user's terminal."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with quiet():
    import tensorflow as tf
    import tf_keras as keras

    tf.config.list_physical_devices()

tf.get_logger().setLevel("ERROR")
warnings.filterwarnings("ignore", module="tensorflow")


def deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and make every TensorFlow operation repeat to the bit."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def converter_error() -> type[Exception]:
    """Return the class of what TFLiteConverter raises, which TensorFlow does not export."""
    from tensorflow.lite.python.convert_phase import ConverterError

    error: type[Exception] = ConverterError
    return error


def quantize_calibrated(model: bytes, float_tensors: list[str]) -> bytes:
    """Return a calibrated .tflite file in int8, one scale a tensor in Dense layers.

    What gives a tensor named in `float_tensors` stays float32: what TensorFlow's QuantizationDebugger does
    with the nodes on its list, which has no setting for the scales.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    quantized: bytes = mlir_quantize(
        model, denylisted_nodes=float_tensors, disable_per_channel_for_dense_layers=True
    )
    return quantized


__all__ = ["converter_error", "deterministic", "keras", "quantize_calibrated", "quiet", "tf"]
