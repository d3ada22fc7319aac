"""`advise`: what to try on a model, what it should bring, and where that is known from."""

from pathlib import Path
from typing import Literal

import msgspec

from edgepack.convert.makeup import Makeup, makeup
from edgepack.errors import ConvertError
from edgepack.latency.as_target import named_profiles
from edgepack.profiles import Profile
from edgepack.report.tables import columns, to_json


class Technique(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe with what it came to where it was measured.

    `table_bits` and `network_bits` are the bits that a weight takes in a download (deflate, level 9), with
    the graph's own bytes in the network's. `kept` is the share of the float model's NDCG@10,
    `overlap_at_10` that of its top ten.
    """

    recipe: str
    does: str
    table_bits: float
    network_bits: float
    kept: float
    overlap_at_10: float
    source: str


_ML_1M = "MovieLens-1M: tests/proofs/results/movielens-1m.md"
_TABLES = "MovieLens-1M, before fine-tuning: tests/proofs/results/tables-movielens-1m.md"

TECHNIQUES = (
    Technique(
        recipe="ptq",
        does="8 bits, nothing trained",
        table_bits=6.84,
        network_bits=8.5,
        kept=0.985,
        overlap_at_10=0.944,
        source=_ML_1M,
    ),
    Technique(
        recipe="qat",
        does="8 bits, trained to live with them",
        table_bits=6.84,
        network_bits=8.5,
        kept=0.999,
        overlap_at_10=0.923,
        source=_ML_1M,
    ),
    Technique(
        recipe="prune50-qat",
        does="half of the weights zero, 8 bits",
        table_bits=5.24,
        network_bits=5.24,
        kept=0.950,
        overlap_at_10=0.713,
        source=_ML_1M,
    ),
    # The two were measured with the table alone on fewer values: the network's bytes are an upper estimate.
    Technique(
        recipe="table-4bit-qat",
        does="15 values in item table and network",
        table_bits=4.14,
        network_bits=8.5,
        kept=0.986,
        overlap_at_10=0.877,
        source=_TABLES,
    ),
    Technique(
        recipe="table-3bit-qat",
        does="7 values in the item table, 15 in the network",
        table_bits=3.09,
        network_bits=8.5,
        kept=0.938,
        overlap_at_10=0.782,
        source=_TABLES,
    ),
)


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """A technique on this model. `model_deflate_bytes` is worked out from the bits of its `source`."""

    technique: Technique
    model_deflate_bytes: int
    ratio: float


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """One target: its limits on size and quality, and the first recipe that should hold them.

    `recipe` is None where none should; the vocabulary and, on the web, the runtime come on top.
    """

    target: str
    limit: Literal["model_bytes", "download_bytes"] | None
    allowed_bytes: int | None
    recipe: str | None
    why: str


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is made of, what recipes should make of it, and what to build for each target."""

    model: str
    stored_bytes: int
    float32_bytes: int
    tables: tuple[tuple[str, int, int, int], ...]
    network_weights: int
    findings: tuple[str, ...]
    expected: tuple[Expected, ...]
    targets: tuple[Fit, ...]


def advise(model: Path, patterns: tuple[str, ...]) -> Advice:
    """Return what to try on the model in `model` (.keras, .h5, .tflite or .onnx) for the targets named.

    Raises ConvertError for a file that cannot be read, ConfigError for a target that is not known.
    """
    made = makeup(model)
    table_weights = sum(table.weights for table in made.tables)
    weights = table_weights + made.network_weights
    if not weights:
        raise ConvertError(
            str(model),
            "there are no weights in it",
            allowed="a trained model: tables and layers with their values",
            remedy="Give the file that the training wrote.",
        )
    expected = tuple(_expected(technique, table_weights, made.network_weights) for technique in TECHNIQUES)
    return Advice(
        model=model.name,
        stored_bytes=made.stored_bytes,
        float32_bytes=4 * weights,
        tables=tuple((table.name, table.rows, table.width, table.copies) for table in made.tables),
        network_weights=made.network_weights,
        findings=tuple(_findings(made, table_weights)),
        expected=expected,
        targets=tuple(_fit(one, weights, expected) for one in named_profiles(patterns or ("*",), None)),
    )


def _expected(technique: Technique, table_weights: int, network_weights: int) -> Expected:
    bits = table_weights * technique.table_bits + network_weights * technique.network_bits
    whole = 32 * (table_weights + network_weights)
    return Expected(technique=technique, model_deflate_bytes=round(bits / 8), ratio=whole / bits)


def _findings(made: Makeup, table_weights: int) -> list[str]:
    found = []
    share = table_weights / max(table_weights + made.network_weights, 1)
    if share >= 0.5:
        found.append(
            f"the item tables are {share:.0%} of the weights: start with them, not with the network "
            f"(recipes table-…; a narrower model taught by this one: [teacher])"
        )
    else:
        found.append(
            f"the network is {1 - share:.0%} of the weights: prune it, thin it, or teach a smaller one"
        )
    twice = [table for table in made.tables if table.copies > 1]
    alike = len(made.tables) - len({(table.rows, table.width) for table in made.tables})
    if twice:
        found.append(f"{twice[0].name} is stored {twice[0].copies} times; edgepack's files hold it once")
    elif alike:
        found.append("tables of one shape stand side by side: one for input and output would halve them")
    return found


def _fit(profile: Profile, weights: int, expected: tuple[Expected, ...]) -> Fit:
    budget = profile.budget
    limits: list[tuple[Literal["model_bytes", "download_bytes"], int]] = []
    if budget.model_bytes is not None:
        limits.append(("model_bytes", budget.model_bytes))
    if budget.download_bytes is not None:
        limits.append(("download_bytes", budget.download_bytes))
    limit, allowed = min(limits, key=lambda pair: pair[1], default=(None, None))
    drop, overlap = budget.max_drop.get("ndcg@10", 1.0), budget.min_overlap_at_10 or 0.0
    # A model's file is held against its limit as it is, a byte a weight; a download is compressed.
    small = [
        one
        for one in expected
        if (budget.model_bytes is None or weights <= budget.model_bytes)
        and (budget.download_bytes is None or one.model_deflate_bytes <= budget.download_bytes)
    ]
    good = [one for one in small if 1 - one.technique.kept <= drop and one.technique.overlap_at_10 >= overlap]
    best = min(good, key=lambda one: one.model_deflate_bytes, default=None)
    if best is not None:
        why = f"the smallest that kept {best.technique.kept:.1%} of NDCG@10 where it was measured"
    elif not small:
        why = "no recipe alone is small enough: teach a narrower model ([teacher]), then compress that"
    else:
        why = f"those small enough lost more than {drop:.1%} where measured: fine-tune, or allow more"
    return Fit(
        target=profile.name,
        limit=limit,
        allowed_bytes=allowed,
        recipe=best.technique.recipe if best else None,
        why=why,
    )


def render(advice: Advice, as_json: bool) -> str:
    """Return the advice as text or JSON."""
    if as_json:
        return to_json(advice)
    lines = [f"{advice.model}: {advice.float32_bytes:,} bytes of weights in float32, each table once"]
    lines += [
        f"  table {name}: {rows:,} x {width}{f', stored {copies} times' if copies > 1 else ''}"
        for name, rows, width, copies in advice.tables
    ]
    lines.append(f"  network: {advice.network_weights:,} weights")
    lines += [f"- {finding}" for finding in advice.findings]
    recipes: list[tuple[str, ...]] = [
        ("recipe", "what it does", "download", "smaller", "NDCG@10 kept", "overlap", "measured on")
    ]
    recipes += [
        (
            one.technique.recipe,
            one.technique.does,
            f"{one.model_deflate_bytes:,}",
            f"{one.ratio:.1f} x",
            f"{one.technique.kept:.1%}",
            f"{one.technique.overlap_at_10:.3f}",
            one.technique.source,
        )
        for one in advice.expected
    ]
    fits: list[tuple[str, ...]] = [("target", "limit", "try", "why")]
    fits += [
        (
            fit.target,
            f"{fit.limit} {fit.allowed_bytes:,}" if fit.allowed_bytes is not None else "none",
            fit.recipe or "-",
            fit.why,
        )
        for fit in advice.targets
    ]
    close = "An expectation, not a measurement: `edgepack build` measures on your model and data."
    return "\n".join([*lines, "", columns(recipes), columns(fits), close]) + "\n"
