"""Normalization without LayerNorm's mean: what an int8 file runs in half of the operators."""

from typing import Any

from edgepack.models.graphs import _Weightless

from edgepack.keras2 import keras, tf

EPSILON = 1e-6


@keras.saving.register_keras_serializable("edgepack")
class RmsNorm(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """x / root mean square of its last axis (Zhang & Sennrich, NeurIPS 2019), as edgepack's LayerNorm rounds.

    `affine` multiplies gamma [d] in and adds beta [d]. Where the Dense layers that read the result hold
    them, there is nothing to multiply. Of values whose mean is 0 it is LayerNorm (Ashkboos et al.,
    SliceGPT, ICLR 2024).
    """

    def __init__(self, affine: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.affine = affine

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "affine": self.affine}

    def build(self, shape: Any) -> None:
        """Create `gamma` and `beta` [d], or nothing."""
        if self.affine:
            self.gamma = self.add_weight(name="gamma", shape=shape[-1:], initializer="ones")
            self.beta = self.add_weight(name="beta", shape=shape[-1:], initializer="zeros")
        super().build(shape)

    def call(self, x: Any) -> Any:
        """Return float32 of the same shape."""
        normed = x * tf.math.rsqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + EPSILON)
        return normed * self.gamma + self.beta if self.affine else normed


@keras.saving.register_keras_serializable("edgepack")
class Centre(_Weightless, keras.layers.Layer):  # type: ignore[misc]
    """x less the mean of its last axis."""

    def call(self, x: Any) -> Any:
        """Return float32 of the same shape."""
        return x - tf.reduce_mean(x, axis=-1, keepdims=True)
