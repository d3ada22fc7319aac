"""The sample shop page: what a shopper reads and does, what a developer sees, and whom it leaves out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgepack.bundle import archive, goldens
from edgepack.data.catalogue import Catalogue
from edgepack.results import Verdict
from edgepack.runtimes.static_server import serve
from edgepack.tools import web
from tests import web_app
from tests.test_web import LENGTH, _float_model, _qdq, expected_scores, histories
from tests.web_app import chromium, opened, packed, site

WIDTHS = (360, 1280)
NOTICE = "Titles of a shop that lent them, CC BY 4.0"
WORKS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")


@pytest.fixture(scope="module", autouse=True)
def tools() -> web.WebTools:
    return web_app.tools_or_skip()


def title(index: int) -> str:
    return f"{('Teal', 'Oak', 'Käte’s')[index % 3]} {('mug', 'lamp')[index % 2]} no. {index}"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small shop with titles, prices in pounds, a notice, and one limit that is not held."""
    folder = tmp_path_factory.mktemp("bundle")
    model = _qdq(_float_model(folder / "float32.onnx"), folder / "qdq.onnx")
    rows = np.concatenate([np.zeros((1, LENGTH), np.int32), histories(63)])
    scores = expected_scores(model, rows)
    made = goldens.make_goldens(
        {"history": rows}, scores, k=10, filter_seen=True, largest_difference=1e-9, runtime=""
    )
    items = range(1, scores.shape[1])
    told = Catalogue(
        titles=("", *map(title, items)),
        prices=(None, *(None if index == 2 else index + 0.5 for index in items)),
        categories=("", *("Lamps" if index % 2 else "Mugs" for index in items)),
        currency="GBP",
        notice=NOTICE,
    )
    packed(folder / "plain.edgepack", model, made, catalogue=told)
    read = archive.read(folder / "plain.edgepack")
    over = Verdict(limit="model_bytes", allowed=10, found=11, margin=-1, status="over", provenance="measured")
    manifest = msgspec.structs.replace(read.manifest, verdicts=(*read.manifest.verdicts, over), files={})
    archive.write(folder / "shop.edgepack", manifest, read.run, read.members)
    return folder / "shop.edgepack"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[str]:
    with serve(site(tmp_path_factory.mktemp("page") / "site", bundle)) as served:
        yield f"{served.url}/"


@pytest.fixture(scope="module")
def shared(browser: Any, address: str) -> Any:
    """One page for the tests that begin by clearing what was picked; starting the runtime takes a second."""
    return opened(browser, address)[0]


@pytest.fixture
def page(shared: Any) -> Any:
    shared.fill("#text", "")
    if shared.is_enabled("#clear"):
        shared.click("#clear")
    shared.wait_for_function("() => document.querySelectorAll('#history li').length === 0")
    return shared


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_inner_texts()
    return found


def test_products_have_titles_and_prices_and_the_notice_is_shown(page: Any) -> None:
    assert texts(page, "#shelf button")[:3] == [title(index) for index in (1, 2, 3)]
    assert texts(page, "#shelf .price")[:3] == ["£1.50", "", "£3.50"]
    assert texts(page, "#shelf .category")[:2] == ["Lamps", "Mugs"]
    assert page.inner_text("#notice") == NOTICE


def test_search_finds_titles_by_the_beginnings_of_words_without_accents(page: Any) -> None:
    page.fill("#text", "KATES mu")
    assert texts(page, "#shelf button")[:1] == []
    page.fill("#text", "kate mu")
    found = texts(page, "#shelf button")
    assert found
    assert all(text.startswith("Käte’s mug") for text in found)
    page.fill("#text", "no such thing")
    assert page.is_visible("#nothing")


def test_more_of_the_shelf_comes_when_asked_for(page: Any) -> None:
    before = len(texts(page, "#shelf button"))
    page.click("#more")
    assert len(texts(page, "#shelf button")) == 2 * before


PULLS = """async () => {
    const { load } = await import("./edgepack/index.mjs");
    const recommender = await load();
    for (const id of recommender.items) {
        const { items } = await recommender.recommend([id]);
        const reasons = await recommender.explain([id], items.map(({ id }) => id));
        if (reasons.some((pulls) => pulls.length)) return recommender.catalogue.title(id);
    }
}"""


def test_a_reason_names_a_pick(page: Any) -> None:
    picked = page.evaluate(PULLS)
    page.fill("#text", picked)
    page.click("#shelf button >> nth=0")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.because')].some((note) => note.textContent)"
    )
    assert {text for text in texts(page, "#list .because") if text} == {f"because of {picked}"}


def test_what_was_overtaken_is_never_shown(page: Any) -> None:
    for _ in range(3):  # faster than the model answers
        page.evaluate("document.querySelectorAll('#shelf button')[6].click()")
        page.evaluate("document.querySelectorAll('#shelf button')[7].click()")
    page.click("#clear")
    page.wait_for_function("() => document.querySelectorAll('#history li').length === 0")
    page.wait_for_timeout(300)
    assert not any(texts(page, "#list .because")), "no reasons of picks that were cleared"


def test_the_panel_tells_budget_backend_hash_and_latency(page: Any, bundle: Path) -> None:
    read = archive.read(bundle)
    page.evaluate("document.getElementById('hood').open = true")
    rows = [row.split("\t") for row in texts(page, "#limits tr")]
    assert ["model_bytes", "10", "11", "over"] in rows
    assert page.locator("#limits tr", has_text="model_bytes").locator(".bad").count() == 1
    assert f"onnxruntime-web {web.VERSION}, WebAssembly, 1 thread in a worker" in page.inner_text("#backend")
    sha256 = read.manifest.files[read.manifest.model_file].sha256
    assert f"SHA-256 {sha256[:12]}… verified" in page.inner_text("#model")
    assert read.content_hash[:12] in page.inner_text("#model")
    assert page.inner_text("#latency").startswith("p50 ")
    page.evaluate("document.getElementById('hood').open = false")


def test_requests_since_load_are_none_and_are_counted(browser: Any, address: str) -> None:
    page, _ = opened(browser, address)
    page.click("#shelf button >> nth=1")
    page.wait_for_selector("#history button")
    assert page.text_content("#requests") == "0"
    page.evaluate("fetch('style.css').then((response) => response.text())")
    page.wait_for_function("() => document.getElementById('requests').textContent === '1'")
    page.context.close()


def test_the_module_ranks_alike_in_a_worker_and_in_the_page(page: Any) -> None:
    lists = page.evaluate(
        """async (history) => {
            const { load } = await import("./edgepack/index.mjs");
            const found = [];
            for (const worker of [true, false]) {
                const recommender = await load({ worker });
                const { items } = await recommender.recommend(history);
                const reasons = await recommender.explain(history, [items[0].id]);
                found.push([recommender.backend.inWorker, items, reasons]);
                await recommender.dispose();
            }
            return found;
        }""",
        ["Item 3", "Item 9"],
    )
    assert [inside for inside, *_ in lists] == [True, False]
    assert lists[0][1:] == lists[1][1:]
    assert len(lists[0][1]) == 10


def test_a_worker_that_cannot_be_loaded_is_told(browser: Any, bundle: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "site", bundle)
    (folder / "edgepack" / "worker.mjs").unlink()
    with serve(folder) as served:
        page, _ = opened(browser, f"{served.url}/")
        assert page.locator("[role=alert]").inner_text() == "worker.mjs could not be loaded."
        page.context.close()


def test_everything_can_be_done_with_the_keyboard(browser: Any, address: str) -> None:
    page, _ = opened(browser, address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = texts(page, "#list button")[0]
    assert page.evaluate("document.activeElement.textContent") == first
    page.keyboard.press("Enter")
    page.wait_for_selector("#history button")
    assert texts(page, "#history button") == [first]
    assert page.evaluate("document.activeElement.closest('ol')?.id") == "list", "the focus stays in the list"
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_and_nothing_stands_out_sideways(
    browser: Any, address: str, tmp_path: Path, width: int, scheme: str
) -> None:
    import axe_playwright_python

    source = Path(axe_playwright_python.__path__[0]) / "axe.min.js"
    page, _ = opened(browser, address, width, prepare=lambda page: page.emulate_media(color_scheme=scheme))
    page.click("#shelf button >> nth=1")
    page.wait_for_selector("#history button")
    page.evaluate("document.getElementById('hood').open = true")
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(source.read_text("utf-8"))
    found = page.evaluate("(tags) => axe.run({ runOnly: tags })", list(WORKS))
    told = [(rule["id"], [node["html"][:120] for node in rule["nodes"][:3]]) for rule in found["violations"]]
    assert told == []
    assert len(found["passes"]) > 10
    page.context.close()


def test_another_shop_needs_no_edit_of_the_app(browser: Any, bundle: Path, tmp_path: Path) -> None:
    read = archive.read(bundle)
    other = msgspec.json.decode(read.members["catalogue.json"], type=Catalogue)
    told = msgspec.structs.replace(
        other,
        titles=("", *(f"Fisch {index}" for index in range(1, len(other.titles)))),
        currency="EUR",
        notice="",
    )
    members = read.members | {"catalogue.json": msgspec.json.encode(told)}
    manifest = msgspec.structs.replace(read.manifest, name="other", files={})
    archive.write(tmp_path / "other.edgepack", manifest, read.run, members)
    with serve(site(tmp_path / "site", tmp_path / "other.edgepack")) as served:
        page, _ = opened(browser, f"{served.url}/")
        assert texts(page, "#shelf button")[0] == "Fisch 1"
        assert texts(page, "#shelf .price")[0] == "€1.50"
        assert page.inner_text("#notice") == ""
        page.context.close()
