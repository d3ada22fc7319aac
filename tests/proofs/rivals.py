"""`make proof-rivals`: one trained teacher, packed by everything that a user would otherwise take.

The stock conversions get the teacher as its author would export it: every position computed, the scores a
product with the item table. edgepack's own rows are of the teacher itself and of the student that its
frontier has (`make proof-frontier-NAME`). Resumable: every file, ranking and count is kept in
.edgepack/proofs/store. Each row holds what edgepack's own rows hold, found in the same runtimes; what a
runtime refuses keeps its reason. The set must have been taken in before
(`edgepack data movielens-1m --from PATH`).
"""

import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edgepack.config import load_config
from edgepack.data.split import load_split
from edgepack.data.types import EvaluationSet, padded
from edgepack.errors import EdgepackError
from edgepack.evaluate.paired import drop
from edgepack.evaluate.ranking import evaluate, overlap
from edgepack.profiles import load_profiles
from edgepack.runtimes.engines import Engine, score_chunks
from edgepack.runtimes.wasm import time_chromium
from edgepack.stages import Place, artifacts, compression, configured, figures, logs, models, versions
from edgepack.store import Kept, Store, sha256_of, source_fingerprint, write_atomic
from tests.proofs.dataset import HERE, ROOT, commit

CORES = {"A53": "android-arm64-low", "A72": "android-arm64-mid", "A76": "android-arm64-high"}
OWN = (
    ("ptq", "tflite-int8-f32scores"),
    ("ptq", "onnx-qdq"),
    ("distil", "tflite-dynamic"),
    ("distil", "onnx-dynamic"),
    ("distil-ptq", "tflite-int8-f32scores"),
    ("distil-ptq", "onnx-qdq"),
    ("distil-control-ptq", "tflite-int8-f32scores"),
    ("distil-control-ptq", "onnx-qdq"),
)
AI_EDGE = "ai-edge-quantizer==0.4.1"
ROUNDS = 3
_SEED = 17


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One file: bytes, quality on all test users, instructions by core, milliseconds in WebAssembly."""

    name: str
    model_bytes: int | None = None
    deflate_bytes: int | None = None
    ndcg_at_10: float | None = None
    drop: tuple[float, float, float] | None = None
    overlap_at_10: float | None = None
    instructions: dict[str, int | str] = {}
    web_ms: float | None = None
    refused: str = ""


class Teacher(msgspec.Struct, frozen=True, kw_only=True):
    """A trained teacher and its student, with everything that the rows are made of."""

    place: Any
    split: Any
    model: Any
    trained: Any
    student: Any
    reference: Any
    users: Any
    histories: Any
    calibration: Any


def teacher(name: str) -> Teacher:
    """Return teacher and student of frontier/NAME-student.toml, trained where the store lacks them."""
    store = Store(ROOT / ".edgepack" / "proofs" / "store")
    path = HERE / "frontier" / f"{name}-student.toml"
    place = Place(load_config(path), path.parent, store, told)
    split = logs.split_log(place)
    items = logs.facts(split).items
    model, learner = configured.teacher(place, items), configured.model(place, items)
    trained = models.train(place, split, model, place.config.seed)
    taught_by = models.Trained(model, trained)
    student = models.Trained(learner, models.distil(place, split, learner, taught_by, place.config.seed))
    users: EvaluationSet = load_split(split.path)[0].test
    return Teacher(
        place=place,
        split=split,
        model=model,
        trained=trained,
        student=student,
        reference=figures.float_quality(place, split, taught_by),
        users=users,
        histories=padded(users.history, model.length),
        calibration=logs.calibration(place, split)["history"],
    )


def told(what: str, done: int, total: int) -> None:
    """Write progress to stderr."""
    sys.stderr.write(f"{what} {f'{done}/{total}' if total else ''}\n")


def stock(one: Teacher) -> Any:
    """Return the teacher as a plain Keras model of batch 1: all positions, then the last one's scores."""
    from edgepack.compress.weights import load_weights
    from edgepack.keras2 import keras, tf

    graphs = one.model.build()
    load_weights(graphs.training, one.trained.path / "weights.npz")
    table = tf.constant(graphs.training.get_layer(graphs.table).get_weights()[0])
    history = keras.Input(batch_shape=(1, one.histories.shape[1]), dtype="int32", name="history")
    # A layer of its own gives the output its name in every format: the runtimes look for `scores`.
    scores = keras.layers.Lambda(lambda x: tf.matmul(x[:, -1], table, transpose_b=True), name="scores")
    return keras.Model(history, scores(graphs.training(history)), name="stock")


def _tflite(one: Teacher, set_up: Callable[[Any], None]) -> bytes:
    from edgepack.keras2 import tf

    converter = tf.lite.TFLiteConverter.from_keras_model(stock(one))
    set_up(converter)
    data: bytes = converter.convert()
    return data


def _plain(converter: Any) -> None:
    pass


def _dynamic(converter: Any) -> None:
    from edgepack.keras2 import tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _float16(converter: Any) -> None:
    from edgepack.keras2 import tf

    _dynamic(converter)
    converter.target_spec.supported_types = [tf.float16]


def _int8(one: Teacher) -> bytes:
    def set_up(converter: Any) -> None:
        _dynamic(converter)
        converter.representative_dataset = lambda: ([row[None]] for row in one.calibration)

    return _tflite(one, set_up)


_QUANTIZE = """
import sys
from ai_edge_quantizer import quantizer, recipe
made = quantizer.Quantizer(sys.argv[1], recipe.dynamic_wi8_afp32())
made.quantize().export_model(sys.argv[2], overwrite=True)
"""


def _ai_edge(one: Teacher) -> bytes:
    """Quantize in an environment of its own: ai-edge-quantizer wants other versions than edgepack."""
    folder = ROOT / ".edgepack" / "proofs" / "ai-edge"
    python = folder / "bin" / "python"
    if not python.exists():
        _run("uv", "venv", "--python", sys.executable, str(folder))
        _run("uv", "pip", "install", "--python", str(python), AI_EDGE)
    result = folder / "dynamic.tflite"
    _run(str(python), "-c", _QUANTIZE, str(_float_file(one, "TFLite float32")), str(result))
    return result.read_bytes()


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"{Path(words[0]).name} failed: {' '.join(last)}")


def _onnx(one: Teacher) -> bytes:
    import tf2onnx

    from edgepack.keras2 import tf

    model = stock(one)
    signature = [tf.TensorSpec(model.inputs[0].shape, tf.int32, name="history")]
    exported, _ = tf2onnx.convert.from_keras(model, signature, opset=17)
    data: bytes = exported.SerializeToString()
    return data


def _quantized(one: Teacher, quantize: Callable[[Path, Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "model.onnx"
        quantize(_float_file(one, "ONNX float32"), result)
        return result.read_bytes()


def _float_file(one: Teacher, name: str) -> Path:
    found = made(one, name)
    if isinstance(found, str):
        raise RuntimeError(f"there is no {name} to quantize: {found}")
    return found


def _ort_dynamic(**settings: Any) -> Callable[[Path, Path], None]:
    def quantize(plain: Path, made: Path) -> None:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(plain, made, **settings)

    return quantize


def _ort_static(one: Teacher, **settings: Any) -> Callable[[Path, Path], None]:
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(one.calibration)

        def get_next(self) -> dict[str, Any] | None:
            row = next(self.rows, None)
            return None if row is None else {"history": row[None]}

    def quantize(plain: Path, made: Path) -> None:
        quantize_static(plain, made, Reader(), **settings)

    return quantize


FEW = {"op_types_to_quantize": ["MatMul", "Gather"]}
RIVALS: dict[str, Callable[[Teacher], bytes]] = {
    "TFLite float32": lambda one: _tflite(one, _plain),
    "TFLite float16": lambda one: _tflite(one, _float16),
    "TFLite dynamic range": lambda one: _tflite(one, _dynamic),
    "TFLite default int8": _int8,
    "ai-edge-quantizer dynamic int8": _ai_edge,
    "ONNX float32": _onnx,
    "ONNX Runtime dynamic int8": lambda one: _quantized(one, _ort_dynamic()),
    "ONNX Runtime dynamic int8, MatMul and Gather": lambda one: _quantized(one, _ort_dynamic(**FEW)),
    "ONNX Runtime static QDQ": lambda one: _quantized(one, _ort_static(one)),
    "ONNX Runtime static QDQ, MatMul and Gather": lambda one: _quantized(one, _ort_static(one, **FEW)),
}
_VERSIONS = versions("tensorflow", "tf_keras", "tf2onnx", "onnxruntime", "ai-edge-litert")


def made(one: Teacher, name: str) -> Path | str:
    """Return a rival's file, made once, or why it could not be made."""

    def make(folder: Path) -> None:
        told(f"making {name}", 0, 0)
        suffix = "onnx" if name.startswith("ONNX") else "tflite"
        try:
            write_atomic(folder / f"model.{suffix}", RIVALS[name](one))
        except Exception as error:  # noqa: BLE001  whatever a stock tool throws is its answer
            write_atomic(folder / "refused.txt", _short(error).encode())

    inputs = {"weights": one.trained.digest, "model": one.model.identity, "name": name, "versions": _VERSIONS}
    inputs["code"] = sha256_of(Path(__file__))
    if name.startswith("ai-edge"):
        inputs["tool"] = AI_EDGE
    return _file(one.place.store.produce("rival", inputs, make))


def _short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _file(kept: Kept) -> Path | str:
    refused = kept.path / "refused.txt"
    return refused.read_text() if refused.exists() else next(kept.path.glob("model.*"))


def own(one: Teacher, recipe: str, format: str) -> Path | str:
    """Return edgepack's own file of a recipe and a format."""
    taught_by = models.Trained(one.model, one.trained)
    source = one.student if recipe.startswith("distil") else taught_by
    compressed = compression.compress(one.place, one.split, source, recipe, taught_by)
    kept = artifacts.artifact(one.place, one.split, source.model, compressed, recipe, format)
    found = figures.artifact_of(kept)
    return found if isinstance(found, str) else kept.path / found.file_name


def row(one: Teacher, name: str, file: Path | str) -> Row:
    """Rank all test users with a file and count it on both cores; kept once found."""
    if isinstance(file, str):
        return Row(name=name, refused=file)

    def make(folder: Path) -> None:
        told(f"ranking and counting {name}", 0, 0)
        write_atomic(folder / "row.json", msgspec.json.encode(_found(one, name, file)))

    inputs = {
        "file": sha256_of(file),
        "name": name,
        "float": one.reference.digest,
        "code": source_fingerprint("evaluate", "runtimes", "measure"),
    }
    kept = one.place.store.produce("rival-row", inputs, make)
    return msgspec.json.decode((kept.path / "row.json").read_bytes(), type=Row)


def _found(one: Teacher, name: str, file: Path) -> Row:
    data = file.read_bytes()
    sized = Row(name=name, model_bytes=len(data), deflate_bytes=len(zlib.compress(data, 9)))
    engine = Engine("litert" if file.suffix == ".tflite" else "ort-web-node")
    try:
        ranked = evaluate(score_chunks(engine, file, one.histories), one.users)
    except EdgepackError as error:
        return msgspec.structs.replace(sized, refused=str(error))
    before = figures.evaluation_of(one.reference)
    lost = drop("ndcg@10", before.metrics["ndcg@10"], ranked.metrics["ndcg@10"], _SEED)
    return msgspec.structs.replace(
        sized,
        ndcg_at_10=ranked.mean("ndcg@10"),
        drop=(lost.value, lost.low, lost.high),
        overlap_at_10=float(overlap(before.top10, ranked.top10).mean()),
        instructions=_instructions(one, file) if file.suffix == ".tflite" else {},
    )


def _instructions(one: Teacher, file: Path) -> dict[str, int | str]:
    profiles = load_profiles()
    history = figures.longest({"history": one.calibration})
    counted: dict[str, int | str] = {}
    for core, target in CORES.items():
        try:
            number = figures.measured(file, sha256_of(file), profiles[target], history).get("instructions")
            counted[core] = int(number.value) if number and number.value is not None else "not measured"
        except EdgepackError as error:
            counted[core] = f"refused: {error}"
    return counted


def timed(one: Teacher, files: dict[str, Path]) -> dict[str, float]:
    """Return the milliseconds of an answer of every .onnx file in Chromium, the files in turn, thrice."""
    history = figures.longest({"history": one.calibration})
    found: dict[str, list[float]] = {name: [] for name in files}
    for turn in range(ROUNDS):
        for name, file in files.items():
            told(f"timing {name}", turn, ROUNDS)
            timing = time_chromium(file, history, cpu_throttle_rate=1, deadline_s=180).timing
            found[name].append(statistics.median(timing.samples_ms))
    return {name: statistics.median(values) for name, values in found.items()}


HEADER = ("file", "bytes", "deflated", "NDCG@10", "drop", "overlap@10", *CORES, "WASM ms")


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown; what is unknown reads "–", a refusal its reason."""
    lines = [HEADER, ("---",) * len(HEADER), *(_cells(one) for one in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cells(one: Row) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    lost = "–" if one.drop is None else "{:.2%} [{:.2%}, {:.2%}]".format(*one.drop)
    counted = [one.instructions.get(core, "–") for core in CORES]
    told_of = f"{one.name}: {one.refused}" if one.refused else one.name
    return (
        told_of.replace("|", "/"),
        shown(one.model_bytes, ","),
        shown(one.deflate_bytes, ","),
        shown(one.ndcg_at_10, ".4f"),
        lost,
        shown(one.overlap_at_10, ".3f"),
        *(f"{value:,}" if isinstance(value, int) else value for value in counted),
        shown(one.web_ms, ".3f"),
    )


def main(name: str) -> None:
    """Make, rank, count and time every file, and write the table."""
    one = teacher(name)
    files = {rival: made(one, rival) for rival in RIVALS}
    files |= {f"edgepack {recipe} {format}": own(one, recipe, format) for recipe, format in OWN}
    rows = [row(one, told_of, file) for told_of, file in files.items()]
    runs = {r.name for r in rows if not r.refused}
    pages = {n: f for n, f in files.items() if n in runs and isinstance(f, Path) and f.suffix == ".onnx"}
    web_ms = timed(one, pages)
    rows = [msgspec.structs.replace(r, web_ms=web_ms.get(r.name)) for r in rows]
    used = ", ".join(f"{package} {number}" for package, number in _VERSIONS.items())
    head = f"<!-- make proof-rivals; commit {commit()}; {used}; {AI_EDGE} -->\n"
    text = (
        f"# {name}: against what a user would otherwise do\n\n"
        f"All {one.users.history.users:,} test users, full catalogue, seen items filtered. Drop and overlap "
        "are against the float Keras teacher, with a paired 95 % interval. Instructions: LiteRT on emulated "
        "cores, third inference. WASM: Chromium, one thread, not throttled; median of three rounds over all "
        "files.\n\n"
    )
    (HERE / "results" / f"rivals-{name}.md").write_text(f"{head}\n{text}{table(rows)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "movielens-1m")
