"""The sample shop page: what a shopper reads and does, what a developer sees, and whom it leaves out."""

import itertools
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
from edgepack.tools.web_runtimes import PACKAGES
from tests import web_app
from tests.test_web import LENGTH, _float_model, _qdq, expected_scores, histories
from tests.web_app import chromium, cleared, opened, packed, settled, site

WIDTHS = (360, 1280)
NOTICE = "Titles of a shop that lent them, CC BY 4.0"
WORKS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    web_app.tools_or_skip()


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
    folder = tmp_path_factory.mktemp("page")
    second = _float_model(folder / "float32.onnx")
    other = packed(folder / "float.edgepack", second, archive.read(bundle).goldens)
    with serve(site(folder / "site", bundle, other)) as served:
        yield f"{served.url}/"


@pytest.fixture(scope="module")
def shared(browser: Any, address: str) -> Any:
    """One page for the tests that leave it as it was; starting the runtime takes a second."""
    return opened(browser, address)[0]


@pytest.fixture
def page(shared: Any) -> Any:
    return cleared(shared)


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
    assert page.inner_text("#found") == f"{len(found)} products"
    page.fill("#text", "no such thing")
    assert page.inner_text("#found") == "No title has these words"
    assert not page.is_visible("#more")


def test_more_of_the_shelf_comes_when_asked_for(page: Any) -> None:
    before = texts(page, "#shelf button")
    page.click("#more")
    after = texts(page, "#shelf button")
    assert after[: len(before)] == before
    assert len(after) == 2 * len(before)
    assert page.evaluate("document.activeElement.textContent") == after[len(before)], "the first new one"


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
    assert {text for text in texts(settled(page), "#list .because") if text} == {f"because of {picked}"}


def test_what_was_overtaken_is_never_shown(page: Any) -> None:
    for _ in range(3):  # faster than the model answers
        page.evaluate("document.querySelectorAll('#shelf button')[6].click()")
        page.evaluate("document.querySelectorAll('#shelf button')[7].click()")
    page.click("#clear")
    settled(page)
    page.wait_for_timeout(300)
    notes = page.locator("#list .because").all_text_contents()
    assert notes == [""] * 10, "no reasons of picks that were cleared"


def test_the_panel_tells_budget_backend_hash_and_latency(page: Any, bundle: Path) -> None:
    read = archive.read(bundle)
    page.evaluate("document.getElementById('hood').open = true")
    rows = [row.split("\t") for row in texts(page, "#limits tr")]
    assert ["model", "≤ 10 B", "11 B", "over"] in rows
    assert page.locator("#limits tr", has_text="over").locator(".bad").inner_text() == "over"
    assert (
        f"onnxruntime-web {PACKAGES['onnxruntime-web'].version}, WebAssembly, 1 thread in a worker"
        in page.inner_text("#backend")
    )
    sha256 = read.manifest.files[read.manifest.model_file].sha256
    assert f"SHA-256 {sha256[:12]}… verified" in page.inner_text("#file")
    told = f"{read.manifest.name} for {read.manifest.target}, {read.content_hash[:12]}…"
    assert page.inner_text("#bundle") == told
    assert f"by recipe {read.manifest.artifact.recipe}" in page.inner_text("#model")
    assert page.inner_text("#latency").startswith("p50 ")
    page.evaluate("document.getElementById('hood').open = false")


def test_each_request_since_load_is_counted(page: Any) -> None:
    before = int(page.text_content("#requests"))
    page.evaluate("fetch('style.css').then((response) => response.text())")
    page.wait_for_function(
        "count => document.getElementById('requests').textContent === count", arg=str(before + 1)
    )


def test_the_module_ranks_and_ends_alike_in_a_worker_and_in_the_page(page: Any) -> None:
    lists, ends = page.evaluate(
        """async (history) => {
            const { load } = await import("./edgepack/index.mjs");
            const [found, ends] = [[], []];
            for (const worker of [true, false]) {
                const recommender = await load({ worker });
                const { items } = await recommender.recommend(history);
                const reasons = await recommender.explain(history, [items[0].id]);
                found.push([recommender.backend.inWorker, items, reasons]);
                const late = recommender.explain(history, history).then(String, () => "refused");
                await recommender.dispose();
                await late;
                ends.push(await recommender.recommend([]).then(String, () => "refused"));
            }
            return [found, ends];
        }""",
        ["Item 3", "Item 9"],
    )
    assert [inside for inside, *_ in lists] == [True, False]
    assert lists[0][1:] == lists[1][1:]
    assert len(lists[0][1]) == 10
    assert ends == ["refused"] * 2, "after it was disposed of, nothing waits for ever"


def test_a_load_that_is_aborted_at_its_last_byte_gives_no_recommender(page: Any) -> None:
    ended = page.evaluate(
        """async () => {
            const { load } = await import("./edgepack/index.mjs");
            const stop = new AbortController();
            const onProgress = ({ loadedBytes, totalBytes }) => loadedBytes === totalBytes && stop.abort();
            return load({ signal: stop.signal, onProgress }).then(() => "loaded", ({ name }) => name);
        }"""
    )
    assert ended == "AbortError"


def test_a_worker_that_cannot_be_loaded_is_told(browser: Any, bundle: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "site", bundle)
    (folder / "edgepack" / "worker.mjs").unlink()
    with serve(folder) as served:
        page, _ = opened(browser, f"{served.url}/")
        assert page.locator("[role=alert]").inner_text() == "worker.mjs could not be loaded."
        page.context.close()


def test_a_tampered_catalogue_is_told_with_what_may_help(browser: Any, bundle: Path, tmp_path: Path) -> None:
    folder = site(tmp_path / "site", bundle)
    told = folder / "edgepack" / "catalogue.json"
    whole = told.read_bytes()
    told.write_bytes(whole.replace(b"Oak", b"Elm"))
    with serve(folder) as served:
        page, _ = opened(browser, f"{served.url}/")
        assert page.locator("[role=alert]").inner_text().startswith("catalogue.json is not the file that was")
        assert "embed the bundle anew" in page.inner_text("#remedy")
        assert page.evaluate("document.body.scrollWidth <= innerWidth")
        told.write_bytes(whole)
        page.click("#again")
        page.wait_for_selector("#list button")
        assert not page.is_visible("#loading")
        page.context.close()


def test_everything_can_be_done_with_the_keyboard_and_without_a_request(browser: Any, address: str) -> None:
    page, _ = opened(browser, address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    first = texts(page, "#list button")[0]
    assert page.evaluate("document.activeElement.textContent") == first
    page.keyboard.press("Enter")
    page.wait_for_selector("#history button")
    assert texts(settled(page), "#history button") == [first]
    assert page.evaluate("document.activeElement.closest('ol')?.id") == "list", "the focus stays in the list"
    page.focus("#clear")
    page.keyboard.press("Enter")
    assert texts(settled(page), "#history button") == []
    assert page.evaluate("document.activeElement.id") == "picks-heading"
    page.focus("#text")
    page.keyboard.type("oak")
    assert all("Oak" in text for text in texts(page, "#shelf button"))
    assert page.text_content("#requests") == "0"
    page.context.close()


def test_axe_finds_nothing_and_nothing_stands_out_sideways(page: Any, tmp_path: Path) -> None:
    import axe_playwright_python

    source = Path(axe_playwright_python.__path__[0]) / "axe.min.js"
    page.click("#shelf button >> nth=1")
    settled(page).evaluate("document.getElementById('hood').open = true")
    page.click("#compare")
    page.wait_for_selector("#pair:not([hidden])")
    page.evaluate(source.read_text("utf-8"))
    for width, scheme in itertools.product(WIDTHS, ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = page.evaluate("(tags) => axe.run({ runOnly: tags })", list(WORKS))
        told = [
            (rule["id"], [node["html"][:120] for node in rule["nodes"][:3]]) for rule in found["violations"]
        ]
        assert told == [], f"{width} px, {scheme}"
        assert len(found["passes"]) > 10


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
