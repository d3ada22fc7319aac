"""TF-MOT behind the switch to Keras 2: it loads TensorFlow, which must find the switch set already."""

import edgepack.keras2  # noqa: F401

# isort: split
import tensorflow_model_optimization as tfmot

__all__ = ["tfmot"]
