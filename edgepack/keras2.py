"""The one switch to Keras 2, set before TensorFlow loads; everyone takes `keras` and `tf` from here.

TF-MOT understands Keras 2 only (tf_keras); Keras 3 models are taken in by `convert.intake`.
"""

import os
import sys

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
if "tensorflow" not in sys.modules:
    # Operations are otherwise reordered by oneDNN from one CPU model to the next.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf
import tf_keras as keras

tf.get_logger().setLevel("ERROR")


def deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, and make every TensorFlow operation repeat to the bit."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


__all__ = ["deterministic", "keras", "tf"]
