"""The sample web app with a bundle embedded, as tests open it in Chromium."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgepack import embedding
from edgepack.bundle import archive
from edgepack.bundle.manifest import Goldens, PinnedRuntime, RunRecord, encode
from edgepack.data.catalogue import Catalogue
from edgepack.errors import ToolError
from edgepack.rows import QueryHashing
from edgepack.runtimes.chromium import FLAGS
from edgepack.runtimes.wasm import runtime_of
from edgepack.store import sha256_of
from edgepack.tools import web
from edgepack.tools.web_runtimes import PACKAGES, locate_runtime
from tests.test_bundle import manifest

ROOT = Path(__file__).parents[1]
SAMPLE_APP = ROOT / "sample_apps" / "web"


def runtime_files(name: str) -> set[str]:
    """Return what a page asks for of a runtime, its adapter included."""
    package = PACKAGES[name]
    return {package.adapter, *(Path(path).name for path in package.files.values())}


RUNTIME_FILES = runtime_files("onnxruntime-web")
SHELL = {"/", "/style.css", "/app.mjs", "/art.mjs", "/hood.mjs", "/view.mjs"}
GLUE = {
    f"/edgepack/{name}.mjs"
    for name in (
        "index",
        "catalogue",
        "engine",
        "facts",
        "files",
        "history",
        "worker",
    )
}


def tools_or_skip() -> None:
    """Skip the test that asks where what running in a browser needs is missing."""
    pytest.importorskip("playwright")
    try:
        web.locate_node(), web.locate_chromium()
        for name in PACKAGES:
            locate_runtime(name)
    except ToolError as error:
        pytest.skip(f"web tools: {error}")


def packed(
    path: Path,
    model: Path,
    goldens: Goldens,
    query: QueryHashing | None = None,
    catalogue: Catalogue | None = None,
) -> Path:
    """Write the bundle of a web target around `model`; its items are called Item 1, Item 2 …"""
    from edgepack.runtimes.host import full_row

    history = full_row(model)["history"].shape[1]
    items = item_count(model)
    name = runtime_of(model)
    runtime = locate_runtime(name)
    contract = msgspec.structs.replace(
        manifest().contract, history_length=history, item_count=items, query=query
    )
    pins = {file.name: sha256_of(file) for file in runtime.files.values()}
    changed = msgspec.structs.replace(
        manifest(),
        target="web-wasm-mobile",
        platform="web-wasm",
        model_file=f"model{model.suffix}",
        contract=contract,
        runtime=PinnedRuntime(name=name, version=PACKAGES[name].version, licence="MIT", files=pins),
    )
    members = {
        f"model{model.suffix}": model.read_bytes(),
        "vocabulary.json": msgspec.json.encode(["", *(f"Item {index}" for index in range(1, items + 1))]),
        "goldens.json": encode(goldens),
        "card.md": b"# a card\n",
    }
    if catalogue is not None:
        members["catalogue.json"] = msgspec.json.encode(catalogue)
    archive.write(path, changed, RunRecord(finished_at="2026-01-01", host="x"), members)
    return path


def item_count(model: Path) -> int:
    """Return V: a model scores its V items and padding."""
    from edgepack.runtimes.host import engine_for, full_row, run

    return run(engine_for(model), model, full_row(model), deadline_s=60).shape[1] - 1


def site(folder: Path, bundle: Path, compared: Path | None = None) -> Path:
    """Copy the sample app to `folder` and embed `bundle` into it."""
    shutil.copytree(SAMPLE_APP, folder)
    embedding.embed(bundle, folder, "web", compared_path=compared)
    return folder


@contextmanager
def chromium() -> Iterator[Any]:
    """A running headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(web.locate_chromium()), args=list(FLAGS))
        yield running
        running.close()


def opened(
    browser: Any,
    url: str,
    width: int = 1024,
    *,
    prepare: Callable[[Any], object] = lambda page: None,
    service_worker: bool = False,
) -> tuple[Any, list[str]]:
    """Open `url` in a fresh profile, wait until the app is ready; the page and what it asked the network."""
    workers = "allow" if service_worker else "block"
    size = {"width": width, "height": 800}
    page = browser.new_context(viewport=size, service_workers=workers).new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    prepare(page)
    page.goto(url)
    page.wait_for_selector("body[data-ready=true]")
    return page, requests


def cleared(page: Any) -> Any:
    """Leave nothing picked and nothing typed, and wait for the list of that."""
    page.fill("#text", "")
    if page.is_enabled("#clear"):
        page.click("#clear")
    return settled(page)


def settled(page: Any) -> Any:
    """Wait for the newest list and its reasons."""
    page.wait_for_selector("#list[aria-busy=false]")
    return page


def over_the_network(requests: list[str]) -> list[str]:
    """Leave out what the page made itself: data: and blob: URLs."""
    return [url for url in requests if not url.startswith(("data:", "blob:"))]
