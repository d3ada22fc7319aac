"""Weight clustering: the number of values and the zeros that a recipe promises stand in the shipped files."""

import msgspec
import numpy as np
import pytest

from edgepack.compress import cluster, prune, qat, steps
from edgepack.compress.recipes import RECIPES, Clustering, Pruning, QuantizationAware
from edgepack.convert import flatbuffer, onnx, onnx_graph, tflite
from edgepack.errors import ConvertError
from tests.test_compress import HISTORIES, LENGTH, build_neumf, build_sasrec, compress

RNG = np.random.default_rng(8)


def recipe(name, **steps_):
    return msgspec.structs.replace(RECIPES[name], clustering=Clustering(clusters=8, epochs=1), **steps_)


def test_k_means_finds_the_values_that_are_there():
    values = RNG.choice(np.array([-1.0, -0.2, 0.3, 2.0]), (40, 5)) + RNG.normal(0, 0.01, (40, 5))
    found = cluster.centroids(values.astype(np.float32), 4, keep_zeros=False)
    np.testing.assert_allclose(found, [-1.0, -0.2, 0.3, 2.0], atol=0.01)


def test_no_cut_of_a_line_into_three_has_less_error_than_k_means():
    values = np.sort(RNG.gamma(2, 1, 60)).astype(np.float32)
    found = cluster.centroids(values, 3, keep_zeros=False)
    error = np.sum((cluster.nearest(values, found) - values) ** 2)
    best = min(
        sum(float(np.var(part)) * len(part) for part in np.split(values, (i, j)))
        for i in range(1, 59)
        for j in range(i + 1, 60)
    )
    assert error <= 1.05 * best


def test_zero_takes_one_of_the_clusters_and_nothing_else_becomes_zero():
    values = RNG.normal(0, 1, (50, 4)).astype(np.float32)
    values[::2] = 0
    found = cluster.centroids(values, 5, keep_zeros=True)
    assert len(found) == 5
    assert 0 in found
    np.testing.assert_array_equal(cluster.nearest(values, found)[::2], 0)


@pytest.fixture(scope="module")
def pcqat(tmp_path_factory):
    """Pruned, clustered, quantization-aware-trained."""
    made = recipe(
        "prune50-cluster16-qat",
        pruning=Pruning(schedule="constant", epochs=1),
        quantization=QuantizationAware(epochs=1, learning_rate=1e-3),
    )
    return compress(build_sasrec, made, tmp_path_factory.mktemp("pcqat"))


def matrices(data):
    return [c for c in flatbuffer.constants(data) if c.name.endswith(("/table", "/weights"))]


def test_training_moves_the_values_and_keeps_their_number_and_the_zeros(pcqat):
    plain = steps.restore(build_sasrec, pcqat, quantized=False)
    counts = cluster.distinct(plain)
    assert {"item_embedding/embeddings", "scores/kernel", "block1_ffn_out/kernel"} <= set(counts)
    assert max(counts.values()) <= 8
    assert min(counts.values()) >= 4
    assert min(prune.zero_share(plain).values()) >= 0.5


def test_the_int8_file_holds_no_more_values_and_no_fewer_zeros(pcqat):
    serving = steps.restore(build_sasrec, pcqat, quantized=True)
    data = tflite.convert(serving, "tflite-int8", length=LENGTH, calibration=HISTORIES)
    assert len(matrices(data)) == 9
    assert {len(np.unique(c.values)) <= 8 for c in matrices(data)} == {True}
    assert min(flatbuffer.zero_share(data).values()) >= 0.5


def test_the_quantized_onnx_file_holds_no_more_values(pcqat):
    exported = onnx.export(steps.restore(build_sasrec, pcqat, quantized=False), length=LENGTH)
    stored = onnx_graph.parse(onnx.quantized(exported, "onnx-qdq", HISTORIES)).weights
    tables = [array for array in stored.values() if array.dtype == np.int8 and array.ndim == 2]
    assert len(tables) == 9
    assert max(len(np.unique(array)) for array in tables) <= 8


def test_clusters_without_pruning_survive_quantization_aware_training(tmp_path):
    made = recipe("cluster16-qat", quantization=QuantizationAware(epochs=1, learning_rate=1e-3))
    folder = compress(build_neumf, made, tmp_path)
    counts = cluster.distinct(steps.restore(build_neumf, folder, quantized=False))
    assert "mlp_second/kernel" in counts
    assert max(counts.values()) <= 8


def test_without_the_shared_gradient_the_values_would_fall_apart(tmp_path):
    made = recipe("cluster16-qat", quantization=QuantizationAware(epochs=1, learning_rate=1e-3))
    wrap, seen = qat.wrap, []

    def careless(model, **settings):
        seen.append(settings.pop("keep_clusters"))
        return wrap(model, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qat, "wrap", careless)
        with pytest.raises(ConvertError, match=r"distinct values after training"):
            compress(build_sasrec, made, tmp_path)
    assert seen[0] is True
