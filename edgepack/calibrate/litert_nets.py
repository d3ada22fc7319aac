"""Networks whose latencies in TensorFlow Lite, XNNPACK or their like were published, rebuilt and counted.

`edgepack calibrate --params DIR` counts what litert-counts.json does not hold yet, and keeps it there: of
each network the first and the third inference of a process of LiteRT with XNNPACK. It needs TensorFlow and
what `edgepack setup` fetches.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepack import proc
from edgepack.calibrate.counts import DEADLINE_S
from edgepack.keras2 import keras, quiet, tf
from edgepack.latency.features import HIERARCHIES
from edgepack.latency.litert import LitertCount, read_counts, write_counts
from edgepack.latency.streams import STREAMS
from edgepack.profiles import load_profiles
from edgepack.runtimes import arm, armv7
from edgepack.tools import Tell

_SEED = 11
_BATCH = 8
_MOVIES = 3953

layers = keras.layers


def _mobilenet_v2(alpha: float, size: int) -> Callable[[], Any]:
    return lambda: keras.applications.MobileNetV2((size, size, 3), alpha, weights=None)


def _mobilenet_v3(name: str) -> Callable[[], Any]:
    build = getattr(keras.applications, name)
    return lambda: build((224, 224, 3), weights=None, include_preprocessing=False)


def _normal_relu(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization()(x))


def _tiny_ad() -> Any:
    """Build MLPerf Tiny's anomaly detector: a dense autoencoder."""
    x = spectrum = keras.Input((640,))
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = _normal_relu(layers.Dense(width)(x))
    return keras.Model(spectrum, layers.Dense(640)(x))


def _tiny_kws() -> Any:
    """Build MLPerf Tiny's keyword spotter: a depthwise separable CNN."""
    sound = keras.Input((49, 10, 1))
    x = _normal_relu(layers.Conv2D(64, (10, 4), 2, "same")(sound))
    for _ in range(4):
        x = _normal_relu(layers.DepthwiseConv2D(3, padding="same")(x))
        x = _normal_relu(layers.Conv2D(64, 1)(x))
    x = layers.Flatten()(layers.AveragePooling2D((25, 5))(x))
    return keras.Model(sound, layers.Dense(12, "softmax")(x))


def _tiny_ic() -> Any:
    """Build MLPerf Tiny's image classifier: a ResNet of eight layers."""
    image = keras.Input((32, 32, 3))
    x = _normal_relu(layers.Conv2D(16, 3, padding="same")(image))
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        y = _normal_relu(layers.Conv2D(width, 3, stride, "same")(x))
        y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same")(y))
        x = layers.Conv2D(width, 1, stride, "same")(x) if stride > 1 else x
        x = layers.ReLU()(x + y)
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(image, layers.Dense(10, "softmax")(x))


def _tiny_vww() -> Any:
    """Build MLPerf Tiny's person detector: MobileNet v1 a quarter as wide."""
    return keras.applications.MobileNet((96, 96, 3), 0.25, weights=None, classes=2)


def _text_classification() -> Any:
    """Build TensorFlow Lite's text classifier: the mean of 256 word vectors, then two dense layers."""
    words = keras.Input((256,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(10_003, 16)(words))
    return keras.Model(words, layers.Dense(2, "softmax")(layers.Dense(16, "relu")(x)))


def _recommendation() -> Any:
    """Build TensorFlow Lite's movie recommender: one table of 32 numbers a movie, the best 100 of all.

    The table makes up the published size; that the encoder averages, and its widths, are assumed.
    """
    history = keras.Input((10,), dtype="int32")
    table = layers.Embedding(_MOVIES, 32)
    known = tf.cast(history[:, :, None] > 0, tf.float32)
    x = tf.reduce_sum(table(history) * known, axis=1) / (tf.reduce_sum(known, axis=1) + 1e-9)
    x = layers.Dense(32, "relu")(layers.Dense(32, "relu")(x))
    scores = tf.matmul(x, table(tf.range(_MOVIES)), transpose_b=True)
    return keras.Model(history, tf.sigmoid(tf.math.top_k(scores, 100).values))


NETS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "mobilenet_v1": (
        lambda: keras.applications.MobileNet((224, 224, 3), weights=None),
        ("a72", "a76", "armv7"),
    ),
    "mobilenet_v2": (_mobilenet_v2(1.0, 224), ("a72", "a76", "armv7")),
    "mobilenet_v3_large": (_mobilenet_v3("MobileNetV3Large"), ("a72", "a76", "armv7")),
    "mobilenet_v3_small": (_mobilenet_v3("MobileNetV3Small"), ("a72", "a76")),
    "mobilenet_v2_0.35_96": (_mobilenet_v2(0.35, 96), ("a72",)),
    "mobilenet_v2_0.35_128": (_mobilenet_v2(0.35, 128), ("a72",)),
    "mobilenet_v2_0.5_96": (_mobilenet_v2(0.5, 96), ("a72",)),
    "mobilenet_v2_1.0_96": (_mobilenet_v2(1.0, 96), ("a72",)),
    "tiny_ad": (_tiny_ad, ("a72",)),
    "tiny_kws": (_tiny_kws, ("a72",)),
    "tiny_ic": (_tiny_ic, ("a72",)),
    "tiny_vww": (_tiny_vww, ("a72",)),
    "text_classification": (_text_classification, ("a76",)),
    "recommendation": (_recommendation, ("a76",)),
}
"""How each network is built, and the kernel streams that its published rows ask for."""


@cache
def tflite(net: str) -> tuple[bytes, NDArray[np.int32]]:
    """Return a network as float32 TFLite with one int32 input and one float32 output, and a row for it.

    Weights are drawn with a fixed seed, and normalisers know their inputs from a batch: otherwise all outputs
    would be the same. The row, int32 [1, numbers], holds pixels or ids of 0 to 2; a network with a float
    input turns them into floats first, four or so an instruction.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(_SEED)
    model = NETS[net][0]()
    shape = model.input_shape[1:]
    rows = np.random.default_rng(_SEED).integers(0, 3, (_BATCH, *shape)).astype(np.int32)
    for layer in model.layers:
        layer.momentum = 0.0  # normalisers take the batch's moments as they are
    is_float = model.input.dtype.is_floating
    model(rows.astype(np.float32) if is_float else rows, training=True)
    numbers = keras.Input(batch_shape=(1, int(np.prod(shape))), dtype="int32", name="history")
    fed = layers.Reshape(shape)(tf.cast(numbers, tf.float32)) if is_float else numbers
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(numbers, model(fed)))
    with quiet():
        converted: bytes = converter.convert()
    return converted, rows[:1].reshape(1, -1)


def recount(tell: Tell) -> None:
    """Count every network that is not counted yet, and keep each as it comes.

    Raises ToolError when a part is missing, MeasureError or LimitError when a network does not run.
    """
    counted = dict(read_counts())
    jobs = [(net, stream) for net, (_, streams) in NETS.items() for stream in streams]
    todo = [job for job in jobs if job not in counted]
    for done, (net, stream) in enumerate(todo):
        tell(f"counting {net}, {stream}", done, len(todo))
        counted[net, stream] = count(net, stream)
        write_counts(counted, _SOURCE)


_SOURCE = (
    "`edgepack calibrate --params DIR`: third and first inference of a network in LiteRT 1.4.0 with "
    "XNNPACK (armv7: tflite-runtime 2.14.0), under qemu-user 7.2.22 and edgepack/runtimes/native/counter.c"
)


def count(net: str, stream: str) -> LitertCount:
    """Build a network and count it on a kernel stream. Raises as `recount`."""
    with proc.temporary_folder("edgepack-litert-") as folder:
        artifact = Path(folder) / f"{net}.tflite"
        converted, row = tflite(net)
        artifact.write_bytes(converted)
        inputs = {"history": row}
        if stream == "armv7":
            core = load_profiles()["android-armv7"].emulation
            assert core is not None  # noqa: S101  the profile that comes along has one
            found = armv7.count(artifact, inputs, core, deadline_s=DEADLINE_S)
        else:
            core = STREAMS[stream]
            found = arm.count(artifact, inputs, core, hierarchies=HIERARCHIES, deadline_s=DEADLINE_S)
            found = found._replace(warm=found.warm.behind_the_first(), cold=found.cold.behind_the_first())
    return LitertCount(net=net, stream=stream, warm=found.warm, cold=found.cold)
