"""`make proof-web-start`: the embedded module and the sample page beside a bare page, in Chromium.

The bare page has the same runtime and model and nothing else: no check, no cache, no vocabulary. Every cold
start is a profile of its own; the kinds take turns, so that all of them meet the same machine: the ratios
count, not the seconds.
"""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgepack import embedding
from edgepack.bundle import archive
from edgepack.runtimes.static_server import serve
from edgepack.tools.web_runtimes import PACKAGES
from tests.web_app import SAMPLE_APP, chromium

RESULT = Path(__file__).parent / "results" / "web-start.md"
STARTS, ROUNDS, BATCHES, CALLS = 10, 10, 10, 20
MOST_FIRST, MOST_STEADY = 1.3, 1.2

_HEAD = "<!doctype html><html lang=en><title>edgepack</title><script type=module>"
_SESSION = """
const [ort, wasm, model] = await Promise.all([
  import("./edgepack/runtime/API"),
  fetch("./edgepack/runtime/WASM").then((response) => response.arrayBuffer()),
  fetch("./edgepack/MODEL").then((response) => response.arrayBuffer()),
]);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmBinary = wasm;
const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
const zeros = (width) => new ort.Tensor("int32", new Int32Array(width), [1, width]);
const feeds = FEEDS;
"""
_BARE = """
globalThis.once = async () => (await session.run(feeds)).scores.data.length;
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
globalThis.onmessage = async () => postMessage((await session.run(feeds)).scores.data);
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


def main(bundle_path: Path) -> None:
    """Time every kind of page and write the table; exits 1 when a ratio is above its goal."""
    bundle = archive.read(bundle_path)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        app = shutil.copytree(SAMPLE_APP, Path(folder) / "app")
        embedded = embedding.embed(bundle_path, app, "web")
        _write_pages(app, bundle)
        with serve(app) as served:
            first = _first(browser, served.url)
            steady = _steady(browser, served.url)
        version = browser.version
    brotli = sum(part.brotli_bytes for part in embedded.parts)
    RESULT.write_text(_told(bundle, version, first, steady, brotli))
    sys.stdout.write(RESULT.read_text())
    sys.exit(0 if _holds(first, steady) else 1)


def _write_pages(app: Path, bundle: archive.Bundle) -> None:
    contract = bundle.manifest.contract
    feeds = f"{{ history: zeros({contract.history_length}) }}"
    if contract.query is not None:
        feeds = f"{{ history: zeros({contract.history_length}), query: zeros({contract.query.length}) }}"
    api, wasm = (Path(path).name for path in PACKAGES["onnxruntime-web"].files.values())
    session = _SESSION.replace("API", api).replace("WASM", wasm).replace("FEEDS", feeds)
    session = session.replace("MODEL", bundle.manifest.model_file)
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


def _first(browser: Any, url: str) -> dict[str, list[float]]:
    """Return the milliseconds from navigation to the first recommendation, of STARTS cold profiles a kind."""
    samples: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for start in range(STARTS):
        for kind, path in KINDS.items():
            page = _opened(browser, f"{url}/{path}")
            samples[kind].append(page.evaluate("firstMs"))
            page.context.close()
        sys.stderr.write(f"cold starts {start + 1}/{STARTS}\n")
    return samples


def _steady(browser: Any, url: str) -> dict[str, list[float]]:
    """Return the milliseconds of a call after the first, means of CALLS, BATCHES in each of ROUNDS turns."""
    kinds = [kind for kind in KINDS if kind != "sample page"]
    pages = {kind: _opened(browser, f"{url}/{KINDS[kind]}") for kind in kinds}
    samples: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(ROUNDS + 1):
        for kind, page in pages.items():
            found = page.evaluate(_STEADY, {"batches": BATCHES, "calls": CALLS})
            samples[kind] += found if turn else []  # the first turn warms up
    return samples


def _opened(browser: Any, address: str) -> Any:
    page = browser.new_context(service_workers="block").new_page()
    page.add_init_script(_SAMPLE)
    page.goto(address)
    while page.evaluate("globalThis.firstMs") is None:  # the page's own policy forbids what waits for this
        page.wait_for_timeout(20)
    return page


def _first_ratios(first: dict[str, list[float]]) -> dict[str, float]:
    bare = statistics.median(first["bare page"])
    return {kind: statistics.median(found) / bare for kind, found in first.items()}


def _steady_ratios(steady: dict[str, list[float]]) -> dict[str, float]:
    return {
        kind: statistics.median(steady[kind]) / statistics.median(steady[bare])
        for kind, bare in BESIDE.items()
    }


def _holds(first: dict[str, list[float]], steady: dict[str, list[float]]) -> bool:
    most = max(_first_ratios(first).values()), max(_steady_ratios(steady).values())
    return most[0] <= MOST_FIRST and most[1] <= MOST_STEADY


def _told(
    bundle: archive.Bundle,
    version: str,
    first: dict[str, list[float]],
    steady: dict[str, list[float]],
    brotli_bytes: int,
) -> str:
    manifest = bundle.manifest
    budget = manifest.budget.download_bytes
    cold, calls = _first_ratios(first), _steady_ratios(steady)
    lines = [
        "# The embedded module beside a bare page",
        "",
        f"`make proof-web-start`. {manifest.name} for {manifest.target}, {manifest.artifact.recipe} "
        f"{manifest.artifact.format}, {manifest.artifact.model_bytes:,} bytes, "
        f"{manifest.contract.item_count:,} items; Chromium {version}, headless, unthrottled, server on this "
        f"machine. Medians of {STARTS} cold profiles and of {ROUNDS * BATCHES * CALLS:,} calls a kind, the "
        f"kinds taking turns. Goals: first at most {MOST_FIRST} x the bare page, steady {MOST_STEADY} x the "
        "runtime in the same place; a worker costs its two messages.",
        "",
        "| page | first recommendation, s | ratio | steady call, ms | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        call = f"{statistics.median(steady[kind]):.3f}" if kind in steady else "-"
        call += f" | {calls[kind]:.2f}" if kind in calls else " | -"
        lines.append(f"| {kind} | {statistics.median(first[kind]) / 1000:.3f} | {cold[kind]:.2f} | {call} |")
    allowed = f"{budget:,}" if budget is not None else "none"
    lines += [
        "",
        f"First visit, all of edgepack's folder in brotli: {brotli_bytes:,} bytes; budget {allowed}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
