"""The Android library on a JVM: its core alone, and the whole of it with real LiteRT files and goldens."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgepack import embedding
from edgepack.bundle import archive, goldens
from edgepack.bundle.manifest import Contract, Goldens, PinnedRuntime, RunRecord, Tensor, encode
from edgepack.convert import flatbuffer, tflite_edit
from edgepack.data.query import hashed
from edgepack.embed import android
from edgepack.errors import MeasureError, ToolError
from edgepack.rows import QueryHashing, Rows
from edgepack.runtimes.android_app import recommend
from tests.test_bundle import manifest

ROOT = Path(__file__).parents[1]
JAVA = ROOT / "tests/android/java"
LITERT = [
    *(ROOT / "tests/android/fakes/org/tensorflow/lite").glob("*.java"),
    *(ROOT / "tests/android/stubs/org/tensorflow/lite" / f"{name}.java" for name in ("DataType", "Delegate")),
]
FOLDER_ASSETS = ROOT / "edgepack/runtimes/jvm/FolderAssets.java"
INT8 = ROOT / "tests/data/arm/int8.tflite"
JARS = [Path("/usr/share/java") / name for name in ("junit4.jar", "hamcrest.jar")]
JVM = ("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8")
LENGTH, ITEMS, K = 10, 200, 5
HASHING = QueryHashing(length=8, buckets=64)
NAMES = ["", *(f"Item {index}, “{'äöü'[index % 3]}”" for index in range(1, ITEMS + 1))]
WORKER_ENGINE = "-Dedgepack.engine=edgepack.testing.WorkerEngine$Opener"

pytestmark = [
    pytest.mark.skipif(not shutil.which("javac"), reason="no JDK: apt-get install openjdk-17-jdk-headless"),
    pytest.mark.skipif(not JARS[0].exists(), reason="no JUnit: apt-get install junit4"),
]


class Case(NamedTuple):
    """A model, how its scores come out of it, and its search."""

    model: bytes
    dtype: str = "float32"
    query: QueryHashing | None = None


def with_int8_scores() -> bytes:
    """Return the int8 file with its scores as they are before they are made floats."""
    model = flatbuffer.read(INT8.read_bytes())
    (graph,) = model.subgraphs
    last = graph.operators.pop()
    assert flatbuffer.operator_name(model, last) == "DEQUANTIZE"
    graph.outputs = last.inputs
    model.signatureDefs[0].outputs[0].tensorIndex = int(last.inputs[0])
    return flatbuffer.write(model)


def with_search() -> bytes:
    """Return the int8 file with an input `query`, each n-gram of which adds numbers to the scores."""
    model = flatbuffer.read(INT8.read_bytes())
    (graph,) = model.subgraphs
    scores = int(graph.outputs[0])
    rows = np.random.default_rng(5).normal(0, 1, (HASHING.buckets + 1, ITEMS + 1)).astype(np.float32)
    rows[0] = 0

    def tensor(name: bytes, kind: int, *shape: int) -> int:
        index = tflite_edit.tensor_like(graph, scores, b"", kind)
        graph.tensors[index].name, graph.tensors[index].shape = name, tflite_edit.indices(*shape)
        return index

    query = tensor(b"query", schema.TensorType.INT32, 1, HASHING.length)
    found = tensor(b"found", schema.TensorType.FLOAT32, 1, HASHING.length, ITEMS + 1)
    summed = tensor(b"summed", schema.TensorType.FLOAT32, 1, ITEMS + 1)
    added = tensor(b"scores", schema.TensorType.FLOAT32, 1, ITEMS + 1)
    table = tflite_edit.constant(model, graph, rows)
    axis = tflite_edit.constant(model, graph, np.array([1], np.int32))
    code = schema.BuiltinOperator
    graph.operators += [
        tflite_edit.operator(model, code.GATHER, 1, [table, query], found, schema.GatherOptionsT()),
        tflite_edit.operator(model, code.SUM, 1, [found, axis], summed, schema.ReducerOptionsT()),
        tflite_edit.operator(model, code.ADD, 1, [scores, summed], added, schema.AddOptionsT()),
    ]
    graph.inputs, graph.outputs = tflite_edit.indices(*graph.inputs, query), tflite_edit.indices(added)
    signature = model.signatureDefs[0]
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = b"query", query
    signature.inputs.append(entry)
    signature.outputs[0].tensorIndex = added
    return flatbuffer.canonical(flatbuffer.write(model))


CASES: dict[str, Callable[[], Case]] = {
    "float scores": lambda: Case(INT8.read_bytes()),
    "int8 scores": lambda: Case(with_int8_scores(), dtype="int8"),
    "search": lambda: Case(with_search(), query=HASHING),
}


def answers(model: bytes) -> Callable[[Rows], NDArray[np.float32]]:
    """Return what scores rows, float32 [N, V + 1], with LiteRT in this process."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    places = {detail["name"].split(":")[0]: detail["index"] for detail in interpreter.get_input_details()}
    places = {name.removeprefix("serving_default_"): index for name, index in places.items()}
    (output,) = interpreter.get_output_details()
    scale, zero_point = output["quantization"]

    def scored(one: Rows) -> Any:
        for name, row in one.items():
            interpreter.set_tensor(places[name], row)
        interpreter.invoke()
        raw = interpreter.get_tensor(output["index"])[0]
        return raw if raw.dtype == np.float32 else (raw.astype(np.float32) - zero_point) * np.float32(scale)

    def answer(rows: Rows) -> NDArray[np.float32]:
        count = len(rows["history"])
        return np.stack([scored({n: v[i : i + 1] for n, v in rows.items()}) for i in range(count)])

    return answer


def recorded(case: Case) -> Goldens:
    popularity = np.arange(ITEMS + 1.0)
    ngrams = case.query and goldens.Ngrams(np.ones(case.query.buckets + 1), case.query.length)
    return goldens.find_goldens(
        answers(case.model),
        popularity,
        LENGTH,
        3,
        k=K,
        filter_seen=True,
        largest_difference=0.0,
        runtime="litert",
        ngrams=ngrams,
    )


def packed(path: Path, case: Case) -> Path:
    """Write the bundle of an Android target around the case's model."""
    inputs = [Tensor(name="history", dtype="int32", shape=(1, LENGTH))]
    if case.query:
        inputs.append(Tensor(name="query", dtype="int32", shape=(1, case.query.length)))
    changed = msgspec.structs.replace(
        manifest(),
        name='a "shop" \\u0022 für 🛋',
        contract=Contract(
            inputs=tuple(inputs),
            outputs=(Tensor(name="scores", dtype=case.dtype, shape=(1, ITEMS + 1)),),
            history_length=LENGTH,
            item_count=ITEMS,
            filter_seen=True,
            query=case.query,
        ),
        runtime=PinnedRuntime(name="litert", version="1.4.0", licence="Apache-2.0"),
    )
    members = {
        "model.tflite": case.model,
        "vocabulary.json": msgspec.json.encode(NAMES),
        "goldens.json": encode(recorded(case)),
        "card.md": b"# a card\n",
    }
    archive.write(path, changed, RunRecord(finished_at="2026-01-01", host="x"), members)
    return path


class Embedded(NamedTuple):
    """A case, its goldens, the embedded module, and the classes made of it and of the tests."""

    case: Case
    goldens: Goldens
    module: Path
    classes: Path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classes of library and tests, without any bundle's facts."""
    classes = tmp_path_factory.mktemp("library")
    sources = ROOT / "edgepack/embed/templates/android/src/main/java/edgepack"
    core = sorted((sources / "core").glob("*.java"))
    compiled(classes, core)  # against nothing but the JDK
    engines = [sources / "android" / f"{name}.java" for name in ("Engines", "LiteRtEngine")]
    tests = [path for path in sorted(JAVA.rglob("*.java")) if path.name != "Answers.java"]
    compiled(classes, [*engines, *LITERT, FOLDER_ASSETS, *tests], classes, *JARS)
    return classes


@pytest.fixture(scope="module", params=list(CASES))
def embedded(
    request: pytest.FixtureRequest, library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Embedded:
    case = CASES[request.param]()
    app = tmp_path_factory.mktemp("app")
    bundle = packed(app / "shop.edgepack", case)
    embedding.embed(bundle, app, "android")
    module = app / android.FOLDER
    compiled(app / "classes", [module / android.FACTS, JAVA / "edgepack/testing/Answers.java"], library)
    return Embedded(case, archive.read(bundle).goldens, module, app / "classes")


def compiled(into: Path, sources: list[Path], *class_path: Path) -> None:
    into.mkdir(exist_ok=True)
    words = [
        "javac",
        "--release",
        "8",
        "-encoding",
        "UTF-8",
        "-Xlint:all,-options",
        "-Werror",
        "-d",
        str(into),
    ]
    words += ["-cp", ":".join(map(str, class_path)), *map(str, sources)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def java(class_path: list[Path], *words: str, told: str = "") -> list[str]:
    """Run a class and return the lines that it printed."""
    worker = (f"-Dedgepack.python={sys.executable}", f"-Dedgepack.worker={JAVA / 'litert_worker.py'}")
    argv = [*JVM, *worker, "-cp", ":".join(map(str, class_path)), *words]
    done = subprocess.run(argv, input=told.encode(), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode().splitlines()


def asked(
    embedded: Embedded, library: Path, rows: list[tuple[str, list[str]]], *words: str, option: str = "-ea"
) -> list[str]:
    """Return what `Answers` says of itself, then a line for each search and history."""
    told = "".join("\t".join([text, *ids]) + "\n" for text, ids in rows)
    assets = str(embedded.module / android.ASSETS)
    main = (option, "edgepack.testing.Answers", assets, *words)
    return java([embedded.classes, library], *main, told=told)


def test_the_core_holds_what_it_promises_without_android(library: Path) -> None:
    said = java([library, *JARS], "org.junit.runner.JUnitCore", "edgepack.core.CoreTest")
    assert any(line.startswith("OK (") for line in said), "\n".join(said)


@pytest.mark.parametrize("option", ["-ea", WORKER_ENGINE], ids=["LiteRT's API", "worker"])
def test_every_recorded_list_comes_back_from_the_embedded_module(
    embedded: Embedded, library: Path, option: str
) -> None:
    cases = [case for case in embedded.goldens.cases if not case.query]
    random = [case for case in embedded.goldens.random if not case.query]
    rows = [("", [NAMES[index] for index in case.history]) for case in (*cases, *random)]
    first, *lines = asked(embedded, library, rows, option=option)
    name = "LiteRT, CPU, 1 thread" if option == "-ea" else "LiteRT in Python"
    total = len(embedded.goldens.cases)
    assert first == f"{name}\tpassed: {total} of {total} lists\t"
    found = [[NAMES.index(pair.rpartition("=")[0]) for pair in line.split("\t")] for line in lines]
    assert [f[: len(c.top_k)] for f, c in zip(found, cases, strict=False)] == [list(c.top_k) for c in cases]
    shares = [len(set(f) & set(c.top_k)) / K for f, c in zip(found[len(cases) :], random, strict=True)]
    assert len(cases) > 1 and np.mean(shares) >= goldens.RANDOM_OVERLAP


def test_a_build_asks_the_embedded_code_for_its_lists(embedded: Embedded) -> None:
    cases = [case for case in embedded.goldens.cases if not case.query]
    histories = [list(case.history) for case in cases]
    fed: list[NDArray[np.int32]] = []

    def score(rows: NDArray[np.int32]) -> NDArray[np.float32]:
        fed.append(rows)
        query = embedded.case.query and np.zeros((len(rows), embedded.case.query.length), np.int32)
        return answers(embedded.case.model)({"history": rows} | ({} if query is None else {"query": query}))

    sources = [embedded.module / android.FACTS, *(embedded.module / android.CORE).iterdir()]
    lists = recommend(sources, embedded.module / android.ASSETS, histories, K, score, deadline_s=60)
    (rows,) = fed
    assert rows.tolist() == [[0] * (LENGTH - len(history)) + history for history in histories]
    for listed, case in zip(lists, cases, strict=True):
        assert [item for item, _ in listed][: len(case.top_k)] == list(case.top_k)
        found = [score for _, score in listed][: len(case.scores)]
        np.testing.assert_allclose(found, case.scores, rtol=1e-6)
    with pytest.raises(MeasureError, match="the Android app's code: javac ended with status 1"):
        recommend(sources[:1], embedded.module, histories, K, score, deadline_s=60)


def test_without_a_jdk_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match=r"javac: is not installed\. Install a JDK"):
        recommend([], tmp_path, [], K, np.zeros_like, deadline_s=60)


def test_scores_are_those_of_python(embedded: Embedded, library: Path) -> None:
    cases = [case for case in embedded.goldens.cases if not case.query]
    rows = [("", [NAMES[index] for index in case.history]) for case in cases]
    for line, case in zip(asked(embedded, library, rows)[1:], cases, strict=True):
        scores = [float(pair.rpartition("=")[2]) for pair in line.split("\t")]
        np.testing.assert_allclose(scores[: len(case.scores)], case.scores, rtol=1e-6)


def test_a_search_is_hashed_and_ranked_as_in_python(embedded: Embedded, library: Path) -> None:
    if embedded.case.query is None:
        rows = [("lamp", []), ("", [])]
        lines = asked(embedded, library, rows)[1:]
        assert lines[0] == lines[1], "a model without a search must not read one"
        return
    texts = ["lamp", "Große LAMPE, 20 cm", "日本語", "", "!!!"]
    histories = [[], [3, 4], [], [7], [200, 1, 9]]
    rows = [(text, [NAMES[i] for i in history]) for text, history in zip(texts, histories, strict=True)]
    fed = {
        "history": np.array([[0] * (LENGTH - len(h)) + h for h in histories], np.int32),
        "query": np.stack([hashed(text, HASHING) for text in texts]),
    }
    best = goldens.top_k(answers(embedded.case.model)(fed), fed["history"], K, True)
    for line, wanted in zip(asked(embedded, library, rows)[1:], best, strict=True):
        assert [pair.rpartition("=")[0] for pair in line.split("\t")] == [NAMES[i] for i in wanted]


def test_a_delegate_that_cannot_be_used_gives_way_to_the_processor(embedded: Embedded, library: Path) -> None:
    closed, first = asked(embedded, library, [], "delegate")
    total = len(embedded.goldens.cases)
    engine, test, why = first.split("\t")
    assert closed == "delegate closed"
    assert (engine, test) == ("LiteRT, CPU, 1 thread", f"passed: {total} of {total} lists")
    assert why == "LiteRT, GPU: LiteRT: it could not be opened (Internal error: Failed to apply delegate)."


def test_an_altered_asset_is_refused(embedded: Embedded, library: Path, tmp_path: Path) -> None:
    for name in ("model.tflite", "vocabulary.json", "goldens.json"):
        assets = tmp_path / name
        shutil.copytree(embedded.module / android.ASSETS, assets)
        content = bytearray((assets / name).read_bytes())
        content[-1] ^= 1
        (assets / name).write_bytes(content)
        said = java([embedded.classes, library], "edgepack.testing.Answers", str(assets))
        assert said == [f"HASH_MISMATCH\t{name} is not the file that was embedded; nothing was run."]


def test_no_class_of_litert_is_loaded_when_another_engine_is_named(embedded: Embedded, library: Path) -> None:
    log = ("-verbose:class", WORKER_ENGINE)
    words = ("edgepack.testing.Answers", str(embedded.module / android.ASSETS))
    said = "\n".join(java([embedded.classes, library], *log, *words))
    assert "edgepack.testing.WorkerEngine" in said
    assert "edgepack.android.LiteRtEngine" not in said
    assert "org.tensorflow.lite.Interpreter" not in said


def test_an_engine_that_is_none_is_named(embedded: Embedded, library: Path) -> None:
    words = ("-Dedgepack.engine=java.lang.String", "edgepack.testing.Answers", str(embedded.module))
    argv = [*JVM, "-cp", f"{embedded.classes}:{library}", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert "edgepack.engine is java.lang.String, which is no class of an engine's factory." in done.stderr


def test_a_model_that_is_not_as_the_manifest_says_is_refused(library: Path, tmp_path: Path) -> None:
    case = Case(INT8.read_bytes(), dtype="int8")
    embedding.embed(packed(tmp_path / "x.edgepack", case), tmp_path, "android")
    module = tmp_path / android.FOLDER
    compiled(tmp_path / "o", [module / android.FACTS, JAVA / "edgepack/testing/Answers.java"], library)
    said = java([tmp_path / "o", library], "edgepack.testing.Answers", str(module / android.ASSETS))
    shape = f"[1, {ITEMS + 1}]"
    assert said == [f"ENGINE\tLiteRT: the model has scores float32 {shape} in place of scores int8 {shape}."]


def test_facts_of_any_text_are_java(embedded: Embedded, library: Path) -> None:
    """The bundle's name has quotes, a backslash before a u, an umlaut and a pair of surrogates."""
    source = (embedded.module / android.FACTS).read_bytes()
    assert source.isascii()
    assert "Item" not in source.decode()
    reader = embedded.classes / "Name.java"
    reader.write_text(
        "class Name { public static void main(String[] a) {"
        " for (char c : edgepack.model.Facts.NAME.toCharArray()) System.out.println((int) c); } }"
    )
    compiled(embedded.classes, [reader], embedded.classes, library)
    units = [int(line) for line in java([embedded.classes, library], "Name")]
    assert np.array(units, "<u2").tobytes().decode("utf-16-le") == 'a "shop" \\u0022 für 🛋'
