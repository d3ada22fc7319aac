"""The sample web app with other models: a second one beside the first, and one that LiteRT.js runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.bundle import archive, goldens
from edgepack.runtimes import host
from edgepack.runtimes.static_server import serve
from tests import web_app
from tests.test_web import TFLITE, _float_model
from tests.test_web_app import cases, ids, small, texts
from tests.web_app import chromium, opened, over_the_network, packed, settled, site


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    web_app.tools_or_skip()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def float_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another recommender of the same items, not quantized; its lists differ."""
    folder = tmp_path_factory.mktemp("float-bundle")
    model = _float_model(folder / "float32.onnx", seed=4)
    return packed(folder / "float-web.edgepack", model, cases(model))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


def listed(page: Any, selector: str) -> list[str]:
    """The items of one of the two lists, without what is said of their places."""
    told = "(items) => items.map((item) => item.firstChild.data)"
    found: list[str] = page.locator(f"{selector} li").evaluate_all(told)
    return found


def marks(page: Any, selector: str) -> list[str]:
    """What is said of the places in one of the two lists."""
    told = "(items) => items.map((item) => item.lastElementChild?.innerText ?? '')"
    found: list[str] = page.locator(f"{selector} li").evaluate_all(told)
    return found


def moved(own: list[str], other: list[str], place: int) -> str:
    if own[place] not in other:
        return "only here"
    by = other.index(own[place]) - place
    return f"{by} up" if by > 0 else f"{-by} down" if by else ""


def test_a_second_model_is_fetched_when_asked_for_and_its_list_stands_beside_the_first(
    browser: Any, bundle: Path, float_bundle: Path, tmp_path: Path
) -> None:
    case = archive.read(float_bundle).goldens.cases[1]
    picked = f"localStorage.setItem('edgepack-history', '{json.dumps(ids(case.history))}')"
    with serve(site(tmp_path / "site", bundle, float_bundle)) as served:
        page, requests = opened(browser, f"{served.url}/", prepare=lambda page: page.add_init_script(picked))
        assert not any("compared" in url for url in requests)
        requests.clear()
        page.click("#compare")
        page.wait_for_selector("#pair:not([hidden])")
        fetched = {url.removeprefix(f"{served.url}/edgepack/") for url in over_the_network(requests)}
        members = {f"compared/{name}" for name in ("model.onnx", "vocabulary.json", "goldens.json")}
        assert fetched == members | {f"{name}.mjs" for name in ("worker", "engine")}, (
            "the runtime is there already"
        )
        own, other = listed(page, "#own"), listed(page, "#other")
        assert other == ids(case.top_k)
        assert own == texts(settled(page), "#list button")
        both = len(set(own) & set(other))
        assert 0 < both < 10
        assert page.inner_text("#beside-note").startswith(f"{both} of 10 are in both lists.")
        assert "p50 of the models" in page.inner_text("#beside-note")
        assert marks(page, "#own") == [moved(own, other, place) for place in range(10)]
        assert marks(page, "#other") == [moved(other, own, place) for place in range(10)]
        page.click("#list button >> nth=0")
        page.wait_for_function("() => document.getElementById('beside-note').textContent.includes('2 lists')")
        assert own[0] not in listed(page, "#other")
        page.context.close()


def test_a_tflite_file_runs_in_litert_and_asks_for_no_other_runtime(browser: Any, tmp_path: Path) -> None:
    rows = goldens.invented_histories(np.ones(web_app.item_count(TFLITE) + 1), 10, 3, 64)
    scores = host.run("litert", TFLITE, {"history": rows}, deadline_s=60)
    recorded = goldens.make_goldens(
        {"history": rows}, scores, k=10, filter_seen=True, largest_difference=1e-9, runtime=""
    )
    bundle = packed(tmp_path / "web-litert-mobile.edgepack", TFLITE, recorded)
    with serve(site(tmp_path / "site", bundle)) as served:
        page, requests = opened(browser, f"{served.url}/")
        asked = {url.rpartition("/")[2] for url in over_the_network(requests) if "/runtime/" in url}
        assert asked == web_app.runtime_files("litertjs")
        total = len(recorded.cases)
        assert page.text_content("#self-test") == f"✓ {total} of {total} recorded lists reproduced"
        assert texts(page, "#list button")[: len(recorded.cases[0].top_k)] == ids(recorded.cases[0].top_k)
        for worker in ("true", "false"):
            load = f"async () => (await import('./edgepack/index.mjs')).load({{ worker: {worker} }})"
            tested = page.evaluate(f"({load})().then((recommender) => recommender.selfTest())")
            assert tested == {"same": total, "total": total, "passed": True}
        page.context.close()


def test_a_tampered_second_model_is_told_and_the_shop_goes_on(
    browser: Any, bundle: Path, float_bundle: Path, tmp_path: Path
) -> None:
    folder = site(tmp_path / "site", bundle, float_bundle)
    (folder / "edgepack" / "compared" / "model.onnx").write_bytes(b"no model")
    with serve(folder) as served:
        page, _ = opened(browser, f"{served.url}/")
        page.click("#compare")
        page.wait_for_function("() => !document.getElementById('compare').disabled")
        told = "compared/model.onnx is not the file that was embedded; nothing was run."
        assert page.inner_text("#beside-note") == told
        assert not page.is_visible("#pair")
        page.click("#list button >> nth=0")
        assert len(texts(settled(page), "#history button")) == 1
        page.context.close()


def test_without_a_second_model_none_is_offered_and_asking_for_one_says_so(
    browser: Any, bundle: Path, tmp_path: Path
) -> None:
    with serve(site(tmp_path / "site", bundle)) as served:
        page, _ = opened(browser, f"{served.url}/")
        assert not page.is_visible("#beside")
        asked = "async () => (await import('./edgepack/index.mjs')).loadCompared().catch(({ code }) => code)"
        assert page.evaluate(asked) == "nothing-to-compare"
        page.context.close()
