"""`python -m edgepack.runtimes.chromium FOLDER`: does FOLDER/jobs.json in headless Chromium.

It runs as a process of its own, so that a deadline, Ctrl-C or a crash ends Playwright's driver and
the browser with it: the driver lives in this process's group, and Chromium ends when the pipe to its
driver closes.
"""

import json
import sys
from pathlib import Path
from typing import Any

from edgepack.runtimes.static_server import serve

FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main(folder: Path) -> None:
    """Do every job of `folder`/jobs.json, each in a fresh page, and write `folder`/answers.json."""
    from playwright.sync_api import Error, sync_playwright

    order = json.loads((folder / "jobs.json").read_text("utf-8"))
    answers: dict[str, Any] = {"jobs": []}
    try:
        with serve(folder, appendable=frozenset({"scores.bin"})) as served, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=order["chromium"], args=list(FLAGS))
            answers["version"] = browser.version
            for job in order["jobs"]:
                answers["jobs"].append(_in_fresh_page(browser, served.url, job))
            browser.close()
    except Error as error:
        answers["error"] = error.message.splitlines()[0]
    (folder / "answers.json").write_text(json.dumps(answers), "utf-8")


def _in_fresh_page(browser: Any, url: str, job: dict[str, Any]) -> dict[str, Any]:
    # A context of its own: the heap's high-water mark and the cold start are then this model's alone.
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/page.html", wait_until="load")
    page.wait_for_function("globalThis.engine !== undefined")
    benchmarks = {"host_benchmark_ms": page.evaluate("engine.benchmark()")} if job["mode"] == "time" else {}
    if job["cpu_throttle_rate"] != 1:
        cdp = context.new_cdp_session(page)
        cdp.send("Emulation.setCPUThrottlingRate", {"rate": job["cpu_throttle_rate"]})
        benchmarks["throttled_benchmark_ms"] = page.evaluate("engine.benchmark()")
    answer: dict[str, Any] = page.evaluate("(job) => engine.perform(job)", job)
    context.close()
    return {**answer, **benchmarks}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
