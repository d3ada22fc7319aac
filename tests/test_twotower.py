"""The search family: its two graphs agree, take any of both inputs, and convert to files that engines run."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepack.models import twotower
from edgepack.models.graphs import Graphs, transfer

from edgepack.bundle import goldens
from edgepack.compress import steps
from edgepack.compress.recipes import RECIPES
from edgepack.compress.weights import save_weights
from edgepack.convert import onnx, parity, tflite
from edgepack.data import query
from edgepack.errors import ConfigError
from edgepack.keras2 import deterministic
from edgepack.profiles import load_profiles
from edgepack.rows import QueryHashing
from edgepack.runtimes.engines import Engine, device_engine, scores
from edgepack.runtimes.static_server import serve
from edgepack.train.fit import predict
from tests import web_app

V, LENGTH, Q, BUCKETS = 60, 6, 5, 128
HYPER = {"width": 16, "query_width": 16, "query_hidden": 16}


def drawn(count: int, seed: int) -> dict[str, np.ndarray]:
    """Return rows: the first without both inputs, the second without history, the third without query."""
    generator = np.random.default_rng(seed)
    history = generator.integers(1, V + 1, (count, LENGTH), dtype=np.int32)
    history[np.arange(LENGTH) < generator.integers(0, LENGTH, (count, 1))] = 0
    query = generator.integers(1, BUCKETS + 1, (count, Q), dtype=np.int32)
    history[:2] = 0
    query[[0, 2]] = 0
    return {"history": history, "query": query}


ROWS = drawn(48, 1)


def build() -> Graphs:
    deterministic(3)
    built = twotower.build(V, LENGTH, query_length=Q, query_buckets=BUCKETS, **HYPER)
    generator = np.random.default_rng(0)
    for variable in built.training.trainable_variables:
        variable.assign(variable + generator.normal(0, 0.3, variable.shape))
    transfer(built.training, built.serving, table=built.table, tied=built.tied)
    return built


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    return build()


def test_serving_gives_the_scores_of_the_trained_graph_for_every_mix_of_inputs(graphs: Graphs) -> None:
    assert graphs.serving.input_names == ["history", "query"]
    served = np.concatenate(list(predict(graphs.serving, ROWS)))
    table = graphs.training.get_layer(graphs.table).embeddings.numpy()
    spread = np.zeros((len(ROWS["query"]), LENGTH, Q), np.int32)
    spread[:, -1] = ROWS["query"]
    for asked in (ROWS["query"][:, None, :], spread):
        hidden = graphs.training([ROWS["history"], asked]).numpy()
        np.testing.assert_allclose(served, hidden[:, -1] @ table.T, atol=2e-5)
    assert np.ptp(served[0]) > 0.01, "without both inputs there is a prior, not one score for all"


def test_both_inputs_move_the_scores_and_the_padding_of_neither_does(graphs: Graphs) -> None:
    before = np.concatenate(list(predict(graphs.serving, ROWS)))
    silent = np.concatenate(list(predict(graphs.serving, ROWS | {"query": np.zeros_like(ROWS["query"])})))
    same = (before == silent).all(axis=1)
    assert same.tolist() == [not row.any() for row in ROWS["query"]]
    for name in ("item_embedding", "ngram_embedding"):
        table = graphs.training.get_layer(name).embeddings
        table.assign(table.numpy() + np.eye(*table.shape[:1], 1, dtype=np.float32) * 3)
    transfer(graphs.training, graphs.serving, table=graphs.table, tied=graphs.tied)
    after = np.concatenate(list(predict(graphs.serving, ROWS)))
    np.testing.assert_array_equal(before[:, 1:], after[:, 1:])


def test_a_search_model_without_a_search_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.query_length is at least 1"):
        twotower.build(V, LENGTH)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model after the recipe `qat`, whose training is left out: what its ranges hold is calibration."""
    folder = tmp_path_factory.mktemp("twotower")
    save_weights(build().training, folder / "float.npz")
    steps.compress(
        build,
        folder / "float.npz",
        RECIPES["qat"],
        calibration=drawn(128, 2),
        steps_per_epoch=1,
        finetune=lambda graphs, **settings: None,
        work=folder,
    )
    return folder


@pytest.mark.parametrize(
    ("format", "engine"),
    [
        ("tflite-float32", "litert"),
        ("tflite-int8", "litert"),
        ("tflite-int8", "tflite-runtime"),
        ("tflite-int8-f32scores", "litert"),
        ("onnx-float32", "onnxruntime"),
        ("onnx-qdq", "onnxruntime"),
        ("ort-qdq", "ort-web-node"),
        ("onnx-dynamic", "ort-web-node"),
    ],
)
def test_every_engine_runs_both_inputs_within_the_parity_limits(
    tuned: Path, format: str, engine: str
) -> None:
    path, reference = converted(tuned, format)
    found = parity.check(reference, scores(Engine(engine), path, ROWS), format)
    assert found.passed, found


@cache
def converted(tuned: Path, format: str) -> tuple[Path, Any]:
    serving = steps.restore(build, tuned, quantized="int8" in format)
    rows = drawn(128, 2)
    if format.startswith("tflite"):
        data = tflite.convert(serving, format, length=LENGTH, calibration=rows)
    else:
        data = onnx.convert(serving, format, length=LENGTH, calibration=rows)
    path = tuned / f"{format}.{format.partition('-')[0]}"
    path.write_bytes(data)
    return path, np.concatenate(list(predict(serving, ROWS)))


@pytest.mark.parametrize("target", ["android-arm64-low", "android-armv7"])
def test_an_emulated_core_gives_the_hosts_bytes(tuned: Path, target: str) -> None:
    path, _ = converted(tuned, "tflite-int8")
    profile = load_profiles()[target]
    there = scores(device_engine(profile), path, ROWS)
    np.testing.assert_array_equal(there, scores(Engine(profile.runtime.name), path, ROWS))


def test_the_page_searches_as_the_library_hashes_and_the_host_scores(tuned: Path, tmp_path: Path) -> None:
    """The sample app on a search model's bundle: its self-test holds, and typing re-ranks."""
    web_app.tools_or_skip()
    hashing = QueryHashing(length=Q, buckets=BUCKETS)
    model = converted(tuned, "ort-float32")[0]
    made = goldens.make_goldens(
        ROWS,
        scores(Engine("onnxruntime"), model, ROWS),
        k=10,
        filter_seen=True,
        largest_difference=1e-6,
        runtime="",
    )
    root = web_app.site(tmp_path / "site", web_app.packed(tmp_path / "b.edgepack", model, made, hashing))
    asked = {"history": np.zeros((1, LENGTH), np.int32), "query": query.hashed("Réd LAMP", hashing)[None]}
    best = goldens.top_k(scores(Engine("onnxruntime"), model, asked), asked["history"], 10, True)[0]
    found = [f"Item {index}" for index in best]
    with serve(root) as served, web_app.chromium() as browser:
        page, _ = web_app.opened(browser, f"{served.url}/")
        assert page.text_content("#self-test").startswith(f"✓ {len(made.cases)} of {len(made.cases)}")
        page.fill("#text", "Réd LAMP")
        page.wait_for_function(
            "first => document.querySelector('#list button').textContent === first", arg=found[0]
        )
        assert page.locator("#list button").all_inner_texts() == found
