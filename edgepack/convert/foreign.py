"""A model that Keras 2 cannot take apart, as one Keras 2 layer: a Keras 3 file or a SavedModel."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgepack import proc
from edgepack.keras2 import keras, tf


@keras.saving.register_keras_serializable("edgepack")
class ForeignModel(keras.layers.Layer):  # type: ignore[misc]
    """history int32 [B, L] -> what the model at `path` gives; its weights are fixed.

    Raises ValueError, TypeError or OSError when the model cannot be opened.
    """

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.path = path
        # As an attribute the opened model's variables are found when the graph is saved for conversion.
        self.opened, self._run = _open_saved_model(path) if Path(path).is_dir() else _open_keras3(path)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        config: dict[str, Any] = super().get_config()
        config.pop("trainable", None)
        return {**config, "path": self.path}

    def call(self, history: Any) -> Any:
        """Return float32 [B, V + 1]."""
        return self._run(history)


_Opened = tuple[Any, Callable[[Any], Any]]


def _open_saved_model(path: str) -> _Opened:
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures.get("serving_default")
    inputs = signature.structured_input_signature[1] if signature is not None else {}
    if len(inputs) != 1 or len(signature.structured_outputs) != 1:
        raise ValueError("its signature serving_default does not have one input and one output")
    (name, spec), (output,) = next(iter(inputs.items())), signature.structured_outputs
    return loaded, lambda history: signature(**{name: tf.cast(history, spec.dtype)})[output]


def _open_keras3(path: str) -> _Opened:
    import keras as keras3  # type: ignore[import-untyped]

    model = keras3.saving.load_model(path, compile=False)
    # Keras 2 does not see the variables of a Keras 3 model, those of a SavedModel it does.
    with proc.temporary_folder("edgepack-keras3-") as folder:
        model.export(folder, verbose=False)
        return _open_saved_model(folder)
