"""The parity gate lets through what still ranks alike, and names why anything else may not ship."""

import numpy as np
import pytest

from edgepack.convert import parity
from edgepack.errors import ConvertError

RNG = np.random.default_rng(7)
SCORES = RNG.normal(size=(32, 501)).astype(np.float32)


def noisy(share):
    return (SCORES + share * RNG.normal(size=SCORES.shape)).astype(np.float32)


def test_equal_scores_pass_in_every_format():
    for format in parity.LIMITS:
        found = parity.check(SCORES, SCORES.copy(), format)
        assert found.passed and found.reason == ""
        assert (found.cosine, found.overlap_at_10, found.max_abs_difference) == (pytest.approx(1), 1, 0)


def test_a_quantized_format_may_differ_more_than_a_float_one():
    candidate = noisy(0.03)
    assert parity.check(SCORES, candidate, "tflite-int8").passed
    found = parity.check(SCORES, candidate, "tflite-float32")
    assert not found.passed and "cosine" in found.reason and "0.9999" in found.reason


def test_scores_of_another_model_fail_on_both_counts():
    found = parity.check(SCORES, RNG.normal(size=SCORES.shape).astype(np.float32), "onnx-qdq")
    assert not found.passed and "cosine" in found.reason and "overlap@10" in found.reason


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_score_that_is_not_finite_fails(value):
    candidate = SCORES.copy()
    candidate[3, 17] = value
    found = parity.check(SCORES, candidate, "onnx-dynamic")
    assert not found.passed and found.reason == "a score is not finite" and found.cosine is None


@pytest.mark.parametrize(("value", "word"), [(0.0, "all zero"), (0.5, "constant")])
def test_output_without_differences_fails(value, word):
    found = parity.check(SCORES, np.full_like(SCORES, value), "tflite-int8")
    assert not found.passed and found.reason == f"the scores of 32 of 32 histories are {word}"


def test_one_flat_history_fails_unless_the_model_is_flat_there_too():
    candidate = SCORES.copy()
    candidate[5] = 0
    assert (
        parity.check(SCORES, candidate, "tflite-int8").reason
        == "the scores of 1 of 32 histories are all zero"
    )
    assert parity.check(candidate, candidate.copy(), "tflite-int8").passed


def test_padding_is_not_compared():
    candidate = SCORES.copy()
    candidate[:, 0] = 1e9
    assert parity.check(SCORES, candidate, "tflite-float32").max_abs_difference == 0


def test_equal_scores_order_by_lower_index():
    assert parity.top_k(np.array([[1, 3, 3, 2, 3]], np.float32), 4).tolist() == [[1, 2, 4, 3]]


def test_a_catalogue_below_ten_items_is_compared_whole():
    assert parity.check(SCORES[:, :5], SCORES[:, :5], "onnx-float32").overlap_at_10 == 1


def test_every_format_names_its_runtimes():
    assert parity.RUNTIMES_OF_FORMAT.keys() == parity.LIMITS.keys()
    assert parity.RUNTIMES_OF_FORMAT["tflite-int8"] == ("litert", "tflite-runtime")
    assert parity.RUNTIMES_OF_FORMAT["ort-qdq"] == ("onnxruntime", "ort-web-node")


def test_an_unknown_format_and_another_catalogue_are_refused():
    with pytest.raises(ConvertError, match="formats are tflite-float32"):
        parity.check(SCORES, SCORES, "tflite-int7")
    with pytest.raises(ConvertError, match=r"shape \[32, 500\]; the model's have \[32, 501\]"):
        parity.check(SCORES, SCORES[:, 1:], "tflite-int8")
