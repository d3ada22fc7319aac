"""Makes the small TFLite models in tests/data/arm; needs the extra `build`.

A recommender of 200 items: 10 item vectors side by side, two Dense layers, 201 scores. Its weights are seeded
and untrained; they only have to give scores that differ.
"""

from pathlib import Path

import numpy as np

from edgepack.keras2 import deterministic, keras, tf

FOLDER = Path(__file__).parent / "arm"
LENGTH, ITEMS, WIDTH = 10, 200, 16


def recommender() -> keras.Model:
    history = keras.Input((LENGTH,), batch_size=1, dtype="int32", name="history")
    vectors = keras.layers.Embedding(ITEMS + 1, WIDTH, embeddings_initializer="random_normal")(history)
    hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(vectors))
    return keras.Model(history, keras.layers.Dense(ITEMS + 1, name="scores")(hidden))


def float_file(model: keras.Model) -> bytes:
    return tf.lite.TFLiteConverter.from_keras_model(model).convert()


def int8_file(model: keras.Model) -> bytes:
    generator = np.random.default_rng(3)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [generator.integers(0, ITEMS + 1, (1, LENGTH)).astype(np.int32)] for _ in range(200)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def main() -> None:
    deterministic(7)
    model = recommender()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "float32.tflite").write_bytes(float_file(model))
    (FOLDER / "int8.tflite").write_bytes(int8_file(model))


if __name__ == "__main__":
    main()
