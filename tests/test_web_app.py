"""The sample web app with a bundle embedded, in Chromium: what it shows, asks for, keeps and refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgepack import embedding
from edgepack.bundle import archive, goldens
from edgepack.bundle.manifest import Goldens
from edgepack.data.read import read
from edgepack.runtimes.static_server import serve
from tests import web_app
from tests.test_web import LENGTH, _float_model, _qdq, expected_scores, histories
from tests.web_app import (
    GLUE,
    RUNTIME_FILES,
    SHELL,
    chromium,
    cleared,
    opened,
    over_the_network,
    packed,
    settled,
    site,
)


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    web_app.tools_or_skip()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("bundle"))


def small(folder: Path) -> Path:
    """Write the bundle of a recommender of a few kB, with goldens of the host's onnxruntime."""
    model = _qdq(_float_model(folder / "float32.onnx"), folder / "qdq.onnx")
    return packed(folder / "web-wasm-mobile.edgepack", model, cases(model))


def cases(model: Path) -> Goldens:
    rows = np.concatenate([np.zeros((1, LENGTH), np.int32), histories(63)])
    scores = expected_scores(model, rows)
    return goldens.make_goldens(
        {"history": rows}, scores, k=10, filter_seen=True, largest_difference=1e-9, runtime=""
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def app(tmp_path: Path, bundle: Path) -> Path:
    return site(tmp_path / "site", bundle)


@pytest.fixture(scope="module")
def visit(browser: Any, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One page for the tests that leave it as it was; starting the runtime takes a second."""
    with serve(site(tmp_path_factory.mktemp("visit") / "site", bundle)) as served:
        yield opened(browser, f"{served.url}/")


@pytest.fixture
def page(visit: Any) -> Any:
    return cleared(visit[0])


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_inner_texts()
    return found


def ids(indices: tuple[int, ...]) -> list[str]:
    return [f"Item {index}" for index in indices]


def test_the_page_asks_for_itself_the_embedded_folder_and_nothing_else(browser: Any, app: Path) -> None:
    with serve(app) as served:
        page, requests = opened(browser, f"{served.url}/")
        page.click("#shelf button >> nth=2")
        page.wait_for_selector("#history button")
        folder = ("model.onnx", "vocabulary.json", "goldens.json")
        expected = SHELL | GLUE | {f"/edgepack/{name}" for name in folder}
        expected |= {f"/edgepack/runtime/{name}" for name in RUNTIME_FILES}
        assert set(over_the_network(requests)) == {served.url + path for path in expected}
        assert set(served.requests) == expected
        assert len(served.requests) == len(expected), "nothing is asked for twice"
        page.context.close()


DAMAGE = """async () => {
    const cache = await caches.open((await caches.keys())[0]);
    const url = new URL("edgepack/model.onnx", document.baseURI).href;
    await cache.put(url, new Response("no model"));
}"""


def test_a_second_visit_asks_for_neither_model_nor_runtime_unless_what_was_kept_is_damaged(
    browser: Any, app: Path
) -> None:
    with serve(app) as served:
        page, requests = opened(browser, f"{served.url}/")

        def again() -> set[str]:
            requests.clear()
            page.reload()
            page.wait_for_selector("body[data-ready=true]")
            return {url.removeprefix(served.url) for url in over_the_network(requests)}

        assert page.text_content("#kept") == "Kept for the next visit"
        first = texts(page, "#list button")
        assert again() == SHELL | GLUE
        assert texts(page, "#list button") == first
        page.evaluate(DAMAGE)
        assert again() == SHELL | GLUE | {"/edgepack/model.onnx"}
        assert texts(page, "#list button") == first
        page.context.close()


def test_with_the_server_closed_the_page_loads_and_ranks(browser: Any, app: Path) -> None:
    with serve(app) as served:
        page, _ = opened(browser, f"{served.url}/", service_worker=True)
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.wait_for_function("navigator.serviceWorker.controller !== null")
        before = texts(page, "#list button")
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    assert texts(page, "#list button") == before
    page.click("#list button >> nth=0")
    assert before[0] not in texts(settled(page), "#list button")
    page.context.close()


def test_the_service_worker_isolates_a_page_that_asks_for_it(browser: Any, app: Path) -> None:
    worker = app / "sw.js"
    worker.write_text("self.edgepackIsolate = true;\n" + worker.read_text())
    with serve(app) as served:
        page, _ = opened(browser, f"{served.url}/", service_worker=True)
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.wait_for_function("() => navigator.serviceWorker.controller !== null")
        assert page.evaluate("crossOriginIsolated") is False, "the first visit had no service worker"
        page.reload()
        page.wait_for_selector("body[data-ready=true]")
        assert page.evaluate("crossOriginIsolated") is True
        assert len(texts(page, "#list button")) == 10
        page.context.close()


LOAD = "globalThis.recommender ??= await (await import('./edgepack/index.mjs')).load();"
REASONS = f"async ([history, ids]) => {{ {LOAD} return recommender.explain(history, ids); }}"


def test_a_reason_is_what_the_score_loses_without_that_item(page: Any, bundle: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(archive.read(bundle).model)
    rows = np.zeros((3, LENGTH), np.int32)
    rows[0, -2:], rows[1, -1], rows[2, -1] = (3, 9), 9, 3  # both, without 3, without 9
    both, *without = expected_scores(model, rows)[:, 1:]
    target = int(np.argmax(both - without[0]))
    pulls = {f"Item {item}": float((both - rest)[target]) for item, rest in zip((3, 9), without, strict=True)}
    told = page.evaluate(REASONS, [["Item 3", "Item 9"], [f"Item {target + 1}"]])[0]
    expected = sorted(((pull, name) for name, pull in pulls.items() if pull > 0), reverse=True)
    assert [reason["id"] for reason in told] == [name for _, name in expected]
    assert [reason["pull"] for reason in told] == pytest.approx([pull for pull, _ in expected], abs=1e-5)


def test_the_history_outlives_the_page_and_is_exported_as_a_log_that_edgepack_reads(
    page: Any, visit: Any, tmp_path: Path
) -> None:
    for count, place in enumerate((4, 2), 1):
        page.click(f"#shelf button >> nth={place}")
        page.wait_for_function(
            "count => document.querySelectorAll('#history li').length === count", arg=count
        )
    page.reload()
    page.wait_for_selector("body[data-ready=true]")
    _, requests = visit
    requests.clear()
    users = []
    for name in ("first.csv", "second.csv"):
        with page.expect_download() as download:
            page.click("#export")
        download.value.save_as(tmp_path / name)
        events = read(tmp_path / name)
        assert events.item.tolist() == ["Item 5", "Item 3"]
        assert events.time is not None
        assert events.time.tolist() == [1, 2]
        users.append(set(events.user.tolist()))
    assert not over_the_network(requests), "nothing is sent anywhere"
    assert [len(user) for user in users] == [1, 1]
    assert users[0] != users[1], "two exports cannot be joined"


def test_ids_with_commas_quotes_and_line_breaks_survive_the_export(page: Any, tmp_path: Path) -> None:
    ids = ["a,b", 'say "hi"', "two\nlines", "ü plain"]
    told = """async (ids) => {
        const history = (await import("./edgepack/index.mjs")).openHistory("other");
        ids.forEach(history.add);
        return history.exportLog();
    }"""
    (tmp_path / "log.csv").write_text(page.evaluate(told, ids), "utf-8")
    assert read(tmp_path / "log.csv").item.tolist() == ids


def test_after_an_update_the_new_bundle_runs_and_the_old_files_are_gone(
    browser: Any, app: Path, bundle: Path, tmp_path: Path
) -> None:
    with serve(app) as served:
        page, _ = opened(browser, f"{served.url}/")
        old = page.evaluate("caches.keys()")
        read = archive.read(bundle)
        changed = msgspec.structs.replace(read.manifest, name="renamed")
        archive.write(tmp_path / "new.edgepack", changed, read.run, read.members)
        assert embedding.embed(tmp_path / "new.edgepack", app, "web").change == "updated"
        page.reload()
        page.wait_for_selector("body[data-ready=true]")
        new = page.evaluate("caches.keys()")
        assert (len(old), len(new)) == (1, 1)
        assert old != new
        page.context.close()


def test_two_apps_of_one_origin_keep_their_files_apart(browser: Any, bundle: Path, tmp_path: Path) -> None:
    read = archive.read(bundle)
    changed = msgspec.structs.replace(read.manifest, name="other")
    archive.write(tmp_path / "other.edgepack", changed, read.run, read.members)
    site(tmp_path / "root" / "one", bundle)
    site(tmp_path / "root" / "two", tmp_path / "other.edgepack")
    with serve(tmp_path / "root") as served:
        page, _ = opened(browser, f"{served.url}/one/")
        page.goto(f"{served.url}/two/")
        page.wait_for_selector("body[data-ready=true]")
        for app in ("one", "two"):
            kept = "async (app) => (await import(`/${app}/edgepack/index.mjs`)).isCached()"
            assert page.evaluate(kept, app) is True
        page.context.close()


def test_a_full_quota_is_told_and_the_page_works(browser: Any, app: Path) -> None:
    full = "Cache.prototype.put = async () => { throw new DOMException('full', 'QuotaExceededError'); };"
    with serve(app) as served:
        page, _ = opened(browser, f"{served.url}/", prepare=lambda page: page.add_init_script(full))
        assert page.text_content("#kept") == "Not kept: the browser's storage is full"
        assert len(texts(page, "#list button")) == 10
        page.context.close()


def test_a_browser_without_simd_is_told_so(browser: Any, app: Path) -> None:
    with serve(app) as served:
        page, requests = opened(
            browser,
            f"{served.url}/",
            prepare=lambda page: page.add_init_script("WebAssembly.validate = () => false;"),
        )
        assert "has no SIMD" in page.locator("[role=alert]").inner_text()
        assert f"{served.url}/edgepack/model.onnx" not in requests
        page.context.close()


def test_the_page_reproduces_every_golden_list(page: Any, bundle: Path) -> None:
    cases = archive.read(bundle).goldens.cases
    assert page.text_content("#self-test") == f"✓ {len(cases)} of {len(cases)} recorded lists reproduced"
    assert texts(page, "#list button")[: len(cases[0].top_k)] == ids(cases[0].top_k)


def test_a_pick_re_ranks_and_is_no_longer_recommended(page: Any) -> None:
    before = texts(page, "#list button")
    page.click("#list button >> nth=0")
    after = texts(settled(page), "#list button")
    assert [text.strip() for text in texts(page, "#history button")] == before[:1]
    assert before[0] not in after
    assert len(after) == 10


def test_a_golden_list_that_differs_is_shown_as_a_failed_self_test(
    browser: Any, bundle: Path, tmp_path: Path
) -> None:
    read = archive.read(bundle)
    told = json.loads(read.members["goldens.json"])
    told["cases"][3]["top_k"].reverse()
    members = read.members | {"goldens.json": json.dumps(told).encode()}
    archive.write(tmp_path / "wrong.edgepack", read.manifest, read.run, members)
    with serve(site(tmp_path / "site", tmp_path / "wrong.edgepack")) as served:
        page, _ = opened(browser, f"{served.url}/")
        count = len(told["cases"])
        assert page.text_content("#self-test") == f"✗ {count - 1} of {count} recorded lists reproduced"
        page.context.close()


ASKED = f"""async ([history, options]) => {{
    {LOAD}
    const found = await recommender.recommend(history, options);
    return {{ ids: found.items.map(({{ id }}) => id), unknown: found.unknown }};
}}"""


def test_the_module_ranks_as_the_contract_says(page: Any, bundle: Path) -> None:
    case = archive.read(bundle).goldens.cases[1]
    older, history = ["Item 1"] * LENGTH, ids(case.history)

    def asked(history: list[str], **options: object) -> dict[str, Any]:
        answer: dict[str, Any] = page.evaluate(ASKED, [history, options])
        return answer

    assert asked([*history[:1], "gone", *history[1:], ""]) == {
        "ids": ids(case.top_k),
        "unknown": ["gone", ""],
    }
    full = [*older, *(f"Item {index}" for index in range(2, 2 + LENGTH))]
    newest = asked(full[-LENGTH:], exclude=["Item 1"])["ids"]
    assert asked(full)["ids"] == newest, "the newest items count, and seen ones are filtered"
    assert asked(history, exclude=ids(case.top_k[:2]), k=3)["ids"] == ids(case.top_k[2:5])
    tied = page.evaluate(
        "async () => (await import('./edgepack/engine.mjs')).topK([9, 1, 3, 1, 3, 2], 4, (i) => i === 5)"
    )
    assert tied == [2, 4, 1, 3]


@pytest.mark.parametrize(
    "name", ["model.onnx", "goldens.json", *(f"runtime/{name}" for name in sorted(RUNTIME_FILES))]
)
def test_a_tampered_file_is_a_visible_error_and_nothing_is_recommended(
    browser: Any, app: Path, name: str
) -> None:
    path = app / "edgepack" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with serve(app) as served:
        page, _ = opened(browser, f"{served.url}/")
        alert = page.locator("[role=alert]").inner_text()
        assert alert == f"{name} is not the file that was embedded; nothing was run."
        assert not page.is_visible("#app")
        page.context.close()


def test_a_file_that_cannot_be_fetched_is_named(browser: Any, app: Path) -> None:
    (app / "edgepack" / "model.onnx").unlink()
    with serve(app) as served:
        page, _ = opened(browser, f"{served.url}/")
        alert = page.locator("[role=alert]").inner_text()
        assert alert == f"{served.url}/edgepack/model.onnx could not be loaded (HTTP 404)."
        page.context.close()


def test_an_app_without_a_bundle_says_what_to_run(browser: Any, app: Path) -> None:
    assert embedding.remove(app, "web").change == "removed"
    with serve(app) as served:
        page, _ = opened(browser, f"{served.url}/")
        assert "edgepack embed BUNDLE --into" in page.locator("[role=alert]").inner_text()
        page.context.close()
