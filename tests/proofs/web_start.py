"""`make proof-web-start`: the embedded module and the sample page beside a bare page, in Chromium.

The bare page has the same runtime and model and nothing else: no check, no cache, no vocabulary. Every cold
start is a profile of its own; the kinds and the bundles take turns, so that all of them meet the same
machine: the ratios count, not the seconds.
"""

import itertools
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from edgepack import embedding
from edgepack.bundle import archive
from edgepack.bundle.manifest import Manifest
from edgepack.runtimes.static_server import serve
from tests.web_app import SAMPLE_APP, chromium

RESULT = Path(__file__).parent / "results" / "web-start.md"
STARTS, ROUNDS, BATCHES, CALLS = 10, 10, 10, 20
QUIET_S = 1.5  # a browser goes on compiling in the background after a page was closed
MOST_FIRST, MOST_STEADY = 1.3, 1.2

_HEAD = "<!doctype html><html lang=en><title>edgepack</title><script type=module>"
_ORT = """
const [ort, wasm, model] = await Promise.all([
  import("./edgepack/runtime/ort.wasm.bundle.min.mjs"),
  fetched("runtime/ort-wasm-simd-threaded.wasm"),
  fetched("MODEL"),
]);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmBinary = wasm;
const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
const zeros = (width) => new ort.Tensor("int32", new Int32Array(width), [1, width]);
const run = async () => (await session.run(FEEDS)).scores.data;
"""
# Without its adapter it needs a script tag, which a worker has not got.
_LITERT = """
const run = async () => session.run(FEEDS);
const zeros = (width) => new Int32Array(width);
const imported = (...parts) => import(URL.createObjectURL(new Blob(parts, { type: "text/javascript" })));
const [{ start }, api, loader, wasm, model] = await Promise.all([
  import("./edgepack/runtime/litert.mjs"),
  fetched("runtime/index.js"),
  fetched("runtime/litert_wasm_compat_internal.js"),
  fetched("runtime/litert_wasm_compat_internal.wasm"),
  fetched("MODEL"),
]);
const session = await (await start({ api, loader, wasm }, imported)).open(model);
"""
_FETCHED = "const fetched = async (name) => (await fetch(`./edgepack/${name}`)).arrayBuffer();"
_BARE = """
globalThis.once = async () => (await run()).length;
await once();
globalThis.firstMs = performance.now();
"""
_WORKER = """
const worker = new Worker("./bare-worker.mjs", { type: "module" });
globalThis.once = () =>
  new Promise((resolve) => {
    worker.onmessage = ({ data }) => resolve(data.length);
    worker.postMessage(0);
  });
await once();
globalThis.firstMs = performance.now();
"""
_IN_WORKER = """
const asked = new Promise((resolve) => (globalThis.onmessage = resolve)); // what comes too early waits
SESSION
globalThis.onmessage = async () => postMessage(await run());
await asked;
globalThis.onmessage();
"""
_MODULE = """
import { load } from "./edgepack/index.mjs";
const recommender = await load({ worker: WORKER });
globalThis.once = async () => (await recommender.recommend([])).items.length;
await once();
globalThis.firstMs = performance.now();
"""
_SAMPLE = """new MutationObserver(() => {
  if (document.querySelector("#list li")) globalThis.firstMs ??= performance.now();
}).observe(document, { childList: true, subtree: true });"""
_STEADY = """async ({ batches, calls }) => {
  const samples = [];
  for (let batch = 0; batch < batches; batch++) {
    const begun = performance.now(); // coarse: 0.1 ms
    for (let call = 0; call < calls; call++) await once();
    samples.push((performance.now() - begun) / calls);
  }
  return samples;
}"""


class Site(NamedTuple):
    """A bundle in the sample app, served with the pages beside it; what a first visit fetches in brotli."""

    manifest: Manifest
    url: str
    brotli_bytes: int


Samples = dict[tuple[str, str], list[float]]
"""Milliseconds by target and kind of page."""


def main(bundle_paths: list[Path]) -> None:
    """Time every kind of page of every bundle, write the tables; exits 1 when the first misses a goal."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser, ExitStack() as stack:
        sites = [_site(Path(folder) / path.stem, path, stack) for path in bundle_paths]
        first, steady = _first(browser, sites), _steady(browser, sites)
        version = browser.version
    RESULT.write_text(_told(sites, version, first, steady))
    sys.stdout.write(RESULT.read_text())
    sys.exit(0 if _holds(sites[0], first, steady) else 1)


def _site(app: Path, bundle_path: Path, stack: ExitStack) -> Site:
    shutil.copytree(SAMPLE_APP, app)
    embedded = embedding.embed(bundle_path, app, "web")
    manifest = archive.read(bundle_path).manifest
    _write_pages(app, manifest)
    served = stack.enter_context(serve(app))
    return Site(manifest, served.url, sum(part.brotli_bytes or 0 for part in embedded.parts))


def _write_pages(app: Path, manifest: Manifest) -> None:
    feeds = f"{{ history: zeros({manifest.contract.history_length}) }}"
    if manifest.contract.query is not None:
        feeds = f"{feeds[:-2]}, query: zeros({manifest.contract.query.length}) }}"
    session = _FETCHED + (_LITERT if manifest.runtime.name == "litertjs" else _ORT)
    session = session.replace("FEEDS", feeds).replace("MODEL", manifest.model_file)
    (app / "bare-worker.mjs").write_text(_IN_WORKER.replace("SESSION", session))
    pages = {
        "bare": session + _BARE,
        "bare-worker": _WORKER,
        "page": _MODULE.replace("WORKER", "false"),
        "worker": _MODULE.replace("WORKER", "true"),
    }
    for name, script in pages.items():
        (app / f"{name}.html").write_text(f"{_HEAD}{script}</script>")


KINDS = {
    "bare page": "bare.html",
    "bare page, in a worker": "bare-worker.html",
    "module, in the page": "page.html",
    "module, in a worker": "worker.html",
    "sample page": "index.html",
}
BESIDE = {"module, in the page": "bare page", "module, in a worker": "bare page, in a worker"}
"""What a steady call is held against: the runtime in the same place, asked directly."""


def _first(browser: Any, sites: list[Site]) -> Samples:
    """Return the times from navigation to the first recommendation, of STARTS cold profiles a kind."""
    samples: Samples = {}
    pages = list(itertools.product(sites, KINDS.items()))
    for start in range(STARTS):
        for site, (kind, path) in (*pages[start:], *pages[:start]):  # none always follows the same
            time.sleep(QUIET_S)
            page = _opened(browser, f"{site.url}/{path}")
            samples.setdefault((site.manifest.target, kind), []).append(page.evaluate("firstMs"))
            page.context.close()
        sys.stderr.write(f"cold starts {start + 1}/{STARTS}\n")
    return samples


def _steady(browser: Any, sites: list[Site]) -> Samples:
    """Return the times of a call after the first, means of CALLS, BATCHES in each of ROUNDS turns."""
    pages = {
        (site.manifest.target, kind): _opened(browser, f"{site.url}/{path}")
        for site, (kind, path) in itertools.product(sites, KINDS.items())
        if kind != "sample page"
    }
    samples: Samples = {key: [] for key in pages}
    for turn in range(ROUNDS + 1):
        for key, page in pages.items():
            found = page.evaluate(_STEADY, {"batches": BATCHES, "calls": CALLS})
            samples[key] += found if turn else []  # the first turn warms up
    return samples


def _opened(browser: Any, address: str) -> Any:
    page = browser.new_context(service_workers="block").new_page()
    page.add_init_script(_SAMPLE)
    page.goto(address)
    while page.evaluate("globalThis.firstMs") is None:  # the page's own policy forbids what waits for this
        page.wait_for_timeout(20)
    return page


def _ratio(samples: Samples, target: str, kind: str, beside: str) -> float:
    return statistics.median(samples[target, kind]) / statistics.median(samples[target, beside])


def _holds(site: Site, first: Samples, steady: Samples) -> bool:
    target = site.manifest.target
    cold = max(_ratio(first, target, kind, "bare page") for kind in KINDS)
    calls = max(_ratio(steady, target, kind, bare) for kind, bare in BESIDE.items())
    return cold <= MOST_FIRST and calls <= MOST_STEADY


def _told(sites: list[Site], version: str, first: Samples, steady: Samples) -> str:
    lines = [
        "# The embedded module beside a bare page",
        "",
        f"`make proof-web-start`. Chromium {version}, headless, unthrottled, server on this machine. Medians "
        f"of {STARTS} cold profiles and of {ROUNDS * BATCHES * CALLS:,} calls a kind; the kinds and the "
        f"bundles take turns. Goals: first at most {MOST_FIRST} x the bare page, steady {MOST_STEADY} x the "
        "runtime in the same place; a worker costs its two messages. The first bundle is held to them; "
        "another runtime stands beside it.",
        "",
    ]
    for site in sites:
        lines += _section(site, first, steady)
    return "\n".join(lines)


def _section(site: Site, first: Samples, steady: Samples) -> list[str]:
    manifest, target = site.manifest, site.manifest.target
    budget = manifest.budget.download_bytes
    lines = [
        f"## {target}: {manifest.runtime.name} {manifest.runtime.version}",
        "",
        f"{manifest.name}, {manifest.artifact.recipe} {manifest.artifact.format}, "
        f"{manifest.artifact.model_bytes:,} bytes, {manifest.contract.item_count:,} items.",
        "",
        "| page | first recommendation, s | ratio | steady call, ms | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        started = f"{statistics.median(first[target, kind]) / 1000:.3f}"
        cells = [kind, started, f"{_ratio(first, target, kind, 'bare page'):.2f}"]
        cells.append(f"{statistics.median(steady[target, kind]):.3f}" if (target, kind) in steady else "-")
        cells.append(f"{_ratio(steady, target, kind, BESIDE[kind]):.2f}" if kind in BESIDE else "-")
        lines.append(f"| {' | '.join(cells)} |")
    allowed = f"{budget:,}" if budget is not None else "none"
    fetched = f"First visit, all of edgepack's folder in brotli: {site.brotli_bytes:,} bytes"
    return [*lines, "", f"{fetched}; budget {allowed}.", ""]


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
