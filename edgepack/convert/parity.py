"""The gate that every artifact passes before anything else is measured: does it still score like its source?

A converter that ends with status 0 has proved nothing, so outputs are compared, in every runtime that the
format is meant for.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgepack.errors import ConvertError

Scores = NDArray[np.float32]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a candidate must reach: mean cosine of score vectors, mean share of common top-10 items."""

    cosine: float
    overlap_at_10: float


FLOAT = Limits(cosine=0.9999, overlap_at_10=0.99)
QUANTIZED = Limits(cosine=0.99, overlap_at_10=0.90)

LIMITS: dict[str, Limits] = {
    "tflite-float32": FLOAT,
    "tflite-float16": FLOAT,
    "tflite-dynamic": QUANTIZED,
    "tflite-int8": QUANTIZED,
    "tflite-int8-f32scores": QUANTIZED,
    "onnx-float32": FLOAT,
    "onnx-float16": FLOAT,
    "onnx-dynamic": QUANTIZED,
    "onnx-qdq": QUANTIZED,
    "ort-float32": FLOAT,
    "ort-float16": FLOAT,
    "ort-dynamic": QUANTIZED,
    "ort-qdq": QUANTIZED,
}

_TFLITE = ("litert", "tflite-runtime")
_ONNX = ("onnxruntime", "ort-web-node")

RUNTIMES_OF_FORMAT: dict[str, tuple[str, ...]] = {
    name: _TFLITE if name.startswith("tflite-") else _ONNX for name in LIMITS
}
"""The engines in which a format must pass; a target's own engine comes on top of these."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How a candidate's scores agree with the reference; `reason` says why it failed, "" when it passed.

    Means over the histories: `cosine` of the score vectors, `overlap_at_10` of the best ten items (0..1).
    `max_abs_difference` is over all scores. All three are None when a score is not finite.
    """

    cosine: float | None
    overlap_at_10: float | None
    max_abs_difference: float | None
    passed: bool
    reason: str


def check(reference: Scores, candidate: Scores, format: str) -> Parity:
    """Hold a candidate's scores, float32 [n, V + 1], against the reference's, for one of LIMITS' formats.

    Index 0 (padding) is ignored. Raises ConvertError for an unknown format or unequal shapes.
    """
    limits = _limits(format)
    if reference.shape != candidate.shape:
        raise ConvertError(
            format,
            f"its scores have the shape {list(candidate.shape)}",
            allowed=f"the model's have {list(reference.shape)}",
            remedy="Convert the model again, with the length and catalogue that it was trained for.",
        )
    reference, candidate = reference[:, 1:], candidate[:, 1:]
    if not np.isfinite(candidate).all():
        unknown = dict.fromkeys(("cosine", "overlap_at_10", "max_abs_difference"))
        return Parity(**unknown, passed=False, reason="a score is not finite")
    cosine = float(np.mean(_cosines(reference, candidate)))
    overlap = float(np.mean(_overlaps(reference, candidate, min(10, reference.shape[1]))))
    reason = _degenerate(reference, candidate) or _shortfall(cosine, overlap, limits)
    return Parity(
        cosine=cosine,
        overlap_at_10=overlap,
        max_abs_difference=float(np.abs(reference - candidate).max()),
        passed=not reason,
        reason=reason,
    )


def top_k(scores: Scores, k: int) -> NDArray[np.int64]:
    """Return the positions of the k highest scores per row, int64 [n, k]; equal scores by lower position."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def _limits(format: str) -> Limits:
    if format not in LIMITS:
        raise ConvertError(
            f"format '{format}'",
            "is not a known format",
            allowed=f"formats are {', '.join(LIMITS)}",
            remedy="Take one of them.",
        )
    return LIMITS[format]


def _degenerate(reference: Scores, candidate: Scores) -> str:
    """Tell of histories that got equal scores for all items, unless the reference gives the same ones."""
    is_flat = candidate.max(axis=1) == candidate.min(axis=1)
    is_lost = is_flat & (reference.max(axis=1) > reference.min(axis=1))
    if not is_flat.all() and not is_lost.any():
        return ""
    kind = "constant" if candidate[is_flat].any() else "all zero"
    return f"the scores of {int(is_flat.sum())} of {len(candidate)} histories are {kind}"


def _cosines(a: Scores, b: Scores) -> NDArray[np.float64]:
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(wide_a, axis=1) * np.linalg.norm(wide_b, axis=1)
    cosines = np.einsum("ij,ij->i", wide_a, wide_b) / np.where(norms > 0, norms, 1)
    # A vector of zeros has no direction; two of them agree.
    return np.where(wide_a.any(axis=1) | wide_b.any(axis=1), cosines, 1.0)


def _overlaps(a: Scores, b: Scores, k: int) -> NDArray[np.float64]:
    pairs = zip(top_k(a, k), top_k(b, k), strict=True)
    return np.array([len(np.intersect1d(x, y)) / k for x, y in pairs])


def _shortfall(cosine: float, overlap: float, limits: Limits) -> str:
    found = (("cosine", cosine, limits.cosine), ("overlap@10", overlap, limits.overlap_at_10))
    return "; ".join(f"{name} {value:.4f} is below {limit}" for name, value, limit in found if value < limit)
