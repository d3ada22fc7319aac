"""A made-up BuildResult with every case a report must show; its figures are illustrations, not claims."""

import hashlib

import msgspec

from edgepack.budget import judge
from edgepack.profiles import Budget
from edgepack.results import (
    Artifact,
    Attribution,
    BuildResult,
    Candidate,
    DataFacts,
    Drop,
    Dropped,
    Estimate,
    Example,
    GroupQuality,
    Measurement,
    ModelRow,
    Number,
    Operator,
    OperatorCost,
    Provenance,
    Quality,
    TargetResult,
)

FLOAT_NDCG = 0.1328
OVERLAP_OF_RECIPE = {"float": 0.91, "ptq": 0.88, "qat": 0.93, "prune50-qat": 0.90}
NDCG_OF_RECIPE = {"float": 0.1327, "ptq": 0.1295, "qat": 0.1324, "prune50-qat": 0.1318}
BYTES_OF_FORMAT = {
    "tflite-int8": 438_912,
    "tflite-int8-f32scores": 441_200,
    "tflite-dynamic": 402_304,
    "tflite-float16": 742_016,
    "tflite-float32": 1_462_896,
    "onnx-dynamic": 421_770,
    "ort-qdq": 512_344,
    "onnx-float32": 1_455_102,
}
ARM_CANDIDATES = (
    ("prune50-qat", "tflite-int8"),
    ("qat", "tflite-int8"),
    ("qat", "tflite-int8-f32scores"),
    ("ptq", "tflite-int8"),
    ("ptq", "tflite-dynamic"),
    ("float", "tflite-float16"),
    ("float", "tflite-float32"),
)
WEB_CANDIDATES = (("prune50-qat", "ort-qdq"), ("ptq", "onnx-dynamic"), ("float", "onnx-float32"))


def estimate(value: float, half_width: float = 0.0041) -> Estimate:
    return Estimate(value=value, low=round(value - half_width, 4), high=round(value + half_width, 4))


def artifact(recipe: str, file_format: str) -> Artifact:
    model_bytes = BYTES_OF_FORMAT[file_format]
    packed = 0.62 if recipe.startswith("prune") else 0.87
    return Artifact(
        recipe=recipe,
        format=file_format,
        file_name=f"model.{file_format.split('-')[0]}",
        model_bytes=model_bytes,
        sha256=hashlib.sha256(f"{recipe} {file_format}".encode()).hexdigest(),
        deflate_bytes=round(model_bytes * packed),
        brotli_bytes=round(model_bytes * packed * 0.96),
        table_bytes=round(model_bytes * 0.58),
        ops=("FULLY_CONNECTED v4 x 13", "GATHER v2 x 1", "BATCH_MATMUL v4 x 4"),
        zero_share={"item_table": 0.5} if recipe.startswith("prune") else {},
    )


def quality(recipe: str, runtime: str, shift: float = 0.0) -> Quality:
    value = NDCG_OF_RECIPE[recipe] + shift
    loss = 1 - value / FLOAT_NDCG
    return Quality(
        metrics={"ndcg@10": estimate(value), "hr@10": estimate(value * 1.86, 0.0066)},
        drops={
            "ndcg@10": Drop(
                metric="ndcg@10", value=loss, upper=loss + 0.009, low=loss - 0.011, high=loss + 0.011
            )
        },
        overlap_at_10=OVERLAP_OF_RECIPE[recipe],
        users=6_040,
        runtime=runtime,
        protocol="full catalogue, seen items filtered, ties against the model",
        groups=tuple(group_quality(*told, loss) for told in GROUPS),
    )


GROUPS = (
    ("history length", "5 to 43 events", 1_524, 600, 0.004),
    ("target's popularity", "tail", 1_432, 180, 0.02),
)


def group_quality(by: str, group: str, users: int, served: int, more: float, loss: float) -> GroupQuality:
    lost = loss + more
    return GroupQuality(
        by=by,
        group=group,
        users=users,
        served={"ndcg@10": served},
        drops={
            "ndcg@10": Drop(
                metric="ndcg@10", value=lost, upper=lost + 0.02, low=lost - 0.02, high=lost + 0.03
            )
        },
        overlap_at_10=estimate(0.9, 0.01),
    )


def number(name: str, value: float | None, provenance: Provenance, source: str, exact: bool) -> Number:
    return Number(name=name, value=value, provenance=provenance, source=source, exact=exact)


def arm_numbers(recipe: str, file_format: str, scale: float) -> tuple[Number, ...]:
    base = 13_412_877 if "int8" in file_format else 31_904_112
    emulator = "qemu-user 7.2, cortex-a53, LiteRT 1.4.0"
    return (
        number("instructions", round(base * scale), "emulated", emulator, True),
        number("l2_misses", round(41_218 * scale), "emulated", emulator, True),
        number("peak_memory_bytes", 3_214_336, "emulated", emulator, True),
        bracket(0.41 * scale, 2.9 * scale),
    )


def bracket(low_ms: float, high_ms: float) -> Number:
    return Number(
        name="latency_p50_ms",
        value=None,
        provenance="modelled",
        source="device model of snapdragon-410, from these counts",
        exact=True,
        low=low_ms,
        high=high_ms,
        error="outside calibration: int8 in LiteRT; a bracket from bounds",
    )


def timed(name: str, value_ms: float, provenance: Provenance, source: str) -> Number:
    return Number(
        name=name,
        value=value_ms,
        provenance=provenance,
        source=source,
        exact=False,
        low=value_ms * 0.98,
        high=value_ms * 1.04,
        error="97 % interval of the median of 31 samples on one machine",
    )


def web_numbers(recipe: str, file_format: str, throttle: int) -> tuple[Number, ...]:
    provenance: Provenance = "measured" if throttle == 1 else "emulated"
    browser = f"Chromium 150, main thread, slowed {throttle} times"
    base = 0.94 if "float32" not in file_format else 1.31
    return (
        number("load_ms", 212.4 * throttle, provenance, browser, False),
        timed("latency_p50_ms", base * throttle, provenance, browser),
        number("peak_memory_bytes", 18_219_008, provenance, browser, True),
    )


def candidate(
    target: str,
    recipe: str,
    file_format: str,
    numbers: tuple[Number, ...],
    budget: Budget,
    runtime_bytes: int,
) -> Candidate:
    file = artifact(recipe, file_format)
    packed = file.brotli_bytes if target.startswith("web") else file.deflate_bytes
    measurement = Measurement(target=target, artifact_sha256=file.sha256, numbers=numbers)
    ranked = quality(recipe, "LiteRT 1.4.0" if runtime_bytes == 0 else "onnxruntime-web 1.30.0")
    download_bytes = packed + 21_400 + runtime_bytes
    return Candidate(
        artifact=file,
        measurement=measurement,
        quality=ranked,
        download_bytes=download_bytes,
        verdicts=judge(
            budget,
            model_bytes=file.model_bytes,
            download_bytes=download_bytes,
            measurement=measurement,
            quality=ranked,
        ),
    )


# kind, layer, shape, in XNNPACK, instructions, L1D misses, L2 misses
OPERATORS = (
    ("GATHER", "item_embedding", (1, 50, 64), False, 24_100, 310, 45),
    ("ADD", "positions", (1, 50, 64), True, 81_977, 51, 0),
    ("MEAN", "block0_norm", (1, 50, 1), True, 66_720, -40, 0),
    ("RSQRT", "block0_norm", (1, 50, 1), False, 199_290, 18, 0),
    ("FULLY_CONNECTED", "block0_key", (1, 50, 64), True, 1_823_810, 228, 2),
    ("FULLY_CONNECTED", "block0_query", (1, 50, 64), True, 1_823_810, 168, 0),
    ("BATCH_MATMUL", "block0_attention", (1, 50, 50), False, 5_510_130, 1_161, 9),
    ("QUANTIZE", "block0_attention", (1, 50, 50), True, 136_840, 78, -3),
    ("FULLY_CONNECTED", "block1_ffn", (1, 50, 64), True, 1_824_410, 101, 0),
    ("RESHAPE", "hidden", (1, 64), True, -209, 0, 0),
    ("FULLY_CONNECTED", "scores", (1, 3417), True, 1_904_110, 14_411, 40_100),
)


def attribution() -> Attribution:
    costs = tuple(
        OperatorCost(
            operator=Operator(
                kind=kind, layer=layer, inputs=(index,), outputs=(index + 1,), shape=shape, dtype="int8"
            ),
            in_xnnpack=in_xnnpack,
            instructions=instructions,
            l1d_misses=l1d_misses,
            l2_misses=l2_misses,
        )
        for index, (kind, layer, shape, in_xnnpack, instructions, l1d_misses, l2_misses) in enumerate(
            OPERATORS
        )
    )
    return Attribution(
        core="Cortex-A53",
        source="the graph cut after each operator",
        operators=costs,
        instructions=13_412_877,
        l1d_misses=16_501,
        l2_misses=41_218,
        slow=("operators outside XNNPACK: BATCH_MATMUL, RSQRT, 5,709,420 instructions (43%)",),
    )


def arm_target(
    name: str, description: str, scale: float, budget: Budget, attribution: Attribution | None = None
) -> TargetResult:
    candidates = tuple(
        candidate(name, recipe, kind, arm_numbers(recipe, kind, scale), budget, 0)
        for recipe, kind in ARM_CANDIDATES
    )
    platform = "android-armv7" if name.endswith("armv7") else "android-arm64"
    found = target(name, description, platform, "LiteRT 1.4.0", candidates)
    return msgspec.structs.replace(found, attribution=attribution)


def web_target(name: str, description: str, throttle: int, budget: Budget) -> TargetResult:
    candidates = tuple(
        candidate(name, recipe, kind, web_numbers(recipe, kind, throttle), budget, 2_390_511)
        for recipe, kind in WEB_CANDIDATES
    )
    return target(name, description, "web-wasm", "onnxruntime-web 1.30.0", candidates)


def target(
    name: str, description: str, platform: str, runtime: str, candidates: tuple[Candidate, ...]
) -> TargetResult:
    passing = [one for one in candidates if one.passes]
    best = min(passing, key=lambda one: one.download_bytes) if passing else None
    return TargetResult(
        target=name,
        description=description,
        platform=platform,
        runtime=runtime,
        candidates=candidates,
        dropped=(
            Dropped(
                recipe="float",
                format="tflite-float32",
                runtime="tflite-runtime 2.14.0",
                reason="overlap@10 with the Keras model is 0.41, the parity gate asks for 0.99",
            ),
        ),
        chosen=best.artifact.sha256 if best else None,
        why=(
            f"{len(passing)} of {len(candidates)} candidates pass; this one is the smallest download."
            if best
            else "every candidate uses more instructions than the limit of 9.0 M."
        ),
        proof="int8 outputs are byte-equal between the host and the emulated core on 500 users",
        bundle=f"{name}.edgepack" if best else None,
        content_hash=hashlib.sha256(name.encode()).hexdigest() if best else None,
        examples=EXAMPLES if best else (),
    )


EXAMPLES = (
    Example(
        number=1,
        why="most changed",
        history=("film-7", "film-9"),
        targets=("film-3",),
        before=("film-1", "film-3"),
        after=("film-3", "film-8"),
        overlap_at_10=0.5,
    ),
)


PHONE_BUDGET = Budget(
    model_bytes=4_000_000,
    download_bytes=600_000,
    instructions=40_000_000,
    peak_memory_bytes=8_000_000,
    min_overlap_at_10=0.80,
    max_drop={"ndcg@10": 0.01},
)
TIGHT_BUDGET = Budget(
    model_bytes=4_000_000,
    instructions=9_000_000,
    latency_ms=2.0,
    min_overlap_at_10=0.80,
    max_drop={"ndcg@10": 0.01},
)
WEB_BUDGET = Budget(
    download_bytes=4_000_000,
    latency_ms=16.0,
    load_ms=1_500.0,
    min_overlap_at_10=0.80,
    max_drop={"ndcg@10": 0.01},
)


def rows() -> tuple[ModelRow, ...]:
    def scored(value: float) -> dict[str, Estimate]:
        return {"ndcg@10": estimate(value), "hr@10": estimate(value * 1.86, 0.0066)}

    def recipe(
        name: str, value: float, overlap: float, size: int, packed: int, zeros: float | None
    ) -> ModelRow:
        return ModelRow(
            name=name,
            kind="recipe",
            metrics=scored(value),
            overlap_at_10=overlap,
            model_bytes=size,
            deflate_bytes=packed,
            zero_share_min=zeros,
            groups=quality(name, "LiteRT 1.4.0").groups,
        )

    return (
        ModelRow(name="SASRec (float)", kind="model", metrics=scored(FLOAT_NDCG)),
        ModelRow(name="popularity", kind="baseline", metrics=scored(0.0312)),
        ModelRow(name="item-kNN, recency", kind="baseline", metrics=scored(0.0921)),
        ModelRow(name="Markov chain", kind="baseline", metrics=scored(0.1107)),
        ModelRow(name="EASE", kind="baseline", metrics={}, note="not run: needs 9.6 GB"),
        recipe("float", 0.1328, 1.0, 1_462_896, 1_331_902, None),
        recipe("ptq", 0.1295, 0.88, 438_912, 381_853, None),
        recipe("qat", 0.1324, 0.93, 438_912, 379_114, None),
        recipe("prune50-qat", 0.1318, 0.90, 438_912, 272_125, 0.503),
    )


def sample_result() -> BuildResult:
    """Return three targets that pass and one that does not, with a baseline that was not run."""
    return BuildResult(
        edgepack_version="0.1.0",
        name="film recommender",
        data=DataFacts(
            source="ml-1m-seq/ml-1m.txt",
            sha256=hashlib.sha256(b"log").hexdigest(),
            users=6_040,
            items=3_416,
            events=999_611,
            dropped={"missing user": 135, "cancelled": 8_905, "equal in user, invoice and item": 5_192},
            split="leave-one-out by time",
            test_users=6_040,
            cold_test_targets=0,
            licence="research use; see the owner's page",
        ),
        model={"family": "sasrec", "width": 64, "blocks": 2, "history_length": 50, "parameters": 352_448},
        protocol="Full catalogue, seen items filtered, ties counted against the model.",
        rows=rows(),
        noise_floor_overlap_at_10=0.612,
        curve=tuple(
            {
                "epoch": epoch,
                "loss": 4.1 + 3.9 * 0.78**epoch,
                "ndcg@10": 0.137 * (1 - 0.74**epoch),
                "hr@10": 0.251 * (1 - 0.74**epoch),
                "wall_s": 19.4,
            }
            for epoch in range(1, 21)
        ),
        targets=(
            arm_target("android-arm64-low", "Entry phone, Cortex-A53", 1.0, PHONE_BUDGET, attribution()),
            arm_target("android-armv7", "Older 32-bit phone, Cortex-A7", 1.62, TIGHT_BUDGET),
            web_target("web-wasm-desktop", "Desktop browser, WebAssembly SIMD", 1, WEB_BUDGET),
            web_target("web-wasm-mobile", "Phone browser, four times slower", 4, WEB_BUDGET),
        ),
        versions={
            "python": "3.11.2",
            "tensorflow": "2.21.0",
            "tensorflow-model-optimization": "0.8.1",
            "ai-edge-litert": "1.4.0",
            "onnxruntime": "1.31.1",
            "onnxruntime-web": "1.30.0",
            "qemu": "7.2",
        },
        stages_made=("train", "compress qat", "convert qat tflite-int8", "measure"),
        stages_kept=("data", "baselines"),
        finished_at="2026-03-01T12:34:56Z",
        wall_s=724.3,
    )
