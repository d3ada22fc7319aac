"""What the embedded web module answers in headless Chromium, run as an app runs it.

`python -m edgepack.runtimes.web_app FOLDER` serves FOLDER, an app's folder with a bundle embedded and
`jobs.json` beside it, in a process of its own for the reasons of `runtimes.chromium`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from edgepack import proc
from edgepack.errors import MeasureError
from edgepack.runtimes.chromium import FLAGS
from edgepack.runtimes.static_server import serve
from edgepack.tools import web

_PAGE = "<!doctype html><html lang=en><title>edgepack</title>"
_ASK = """async ({ histories, k }) => {
    const { load } = await import("./edgepack/index.mjs");
    const recommender = await load();
    const lists = [];
    for (const history of histories) {
        const { items } = await recommender.recommend(history, { k });
        lists.push(items.map(({ id, score }) => [id, score]));
    }
    return lists;
}"""


def recommend(
    app: Path, histories: list[list[str]], k: int, *, deadline_s: float
) -> list[list[tuple[str, float]]]:
    """Return for each history (item ids, oldest first) the k ids and scores that the module recommends.

    `app` holds `edgepack/` and takes the files of the run. Raises MeasureError when the module fails,
    ToolError without Chromium, LimitError when `deadline_s` passes.
    """
    web.locate_playwright()
    order = {"chromium": str(web.locate_chromium()), "histories": histories, "k": k}
    (app / "jobs.json").write_text(json.dumps(order), "utf-8")
    (app / "index.html").write_text(_PAGE, "utf-8")
    argv: list[str | Path] = [sys.executable, "-m", "edgepack.runtimes.web_app", app]
    done = proc.run(argv, deadline_s=deadline_s, env={"TMPDIR": str(app)})
    answers = app / "answers.json"
    told: Any = json.loads(answers.read_text("utf-8")) if done.returncode == 0 else done.stderr_tail[-300:]
    if isinstance(told, str):
        raise MeasureError(
            "the web app",
            f"recommends nothing: {told}",
            remedy="Open it in a browser and read its console.",
        )
    return msgspec.convert(told, list[list[tuple[str, float]]])


def main(folder: Path) -> None:
    """Ask the module for every history; `folder`/answers.json holds the lists, or what went wrong."""
    from playwright.sync_api import Error, sync_playwright

    order = json.loads((folder / "jobs.json").read_text("utf-8"))
    try:
        with serve(folder) as served, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=order["chromium"], args=list(FLAGS))
            page = browser.new_page()
            page.goto(f"{served.url}/index.html")
            answers = page.evaluate(_ASK, {"histories": order["histories"], "k": order["k"]})
            browser.close()
    except Error as error:
        answers = error.message.splitlines()[0]
    (folder / "answers.json").write_text(json.dumps(answers), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
