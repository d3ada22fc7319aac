"""The feedback loop, walked once: shoppers click in the app, send it in, and the next build knows."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgepack.bundle import archive
from edgepack.data import shop
from edgepack.runtimes.static_server import serve
from tests import web_app
from tests.readme import ROOT
from tests.test_end_to_end import edgepack, report

CONFIG = """
[data]
path = "orders.csv"
collected = "sent"
[model]
family = "mf"
history_length = 12
[model.hyper]
width = 16
[training]
start = "ease"
epochs = 0
[compress]
recipes = []
[targets]
names = ["web"]
folder = "targets"
[quality]
noise_floor = false
[budget."*"]
min_overlap_at_10 = 0.0
max_drop = { "ndcg@10" = 1.0 }
load_ms = 60000.0
latency_ms = 60000.0
"""
SENT = 12
"""Shoppers who send a history: enough to make a rare item popular."""
CLICK = """async (ids) => {
    const { openHistory } = await import("./edgepack/index.mjs");
    const history = openHistory();
    history.clear();
    ids.forEach(history.add);
    return history.exportLog();
}"""
RECOMMEND = """async () => {
    const { load, facts, openHistory } = await import("./edgepack/index.mjs");
    const recommender = await load();
    const { items } = await recommender.recommend(openHistory().ids, { k: 50 });
    return { hash: facts.contentHash, history: openHistory().ids, ids: items.map(({ id }) => id) };
}"""


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A shop's own log and configuration, with nothing collected yet."""
    web_app.tools_or_skip()
    events = shop.make_shop(500, users=150, seed=3)
    assert events.time is not None
    with (tmp_path / "orders.csv").open("w", newline="") as stream:
        written = csv.writer(stream)
        written.writerow(("user", "item", "time"))
        written.writerows(zip(events.user, events.item, events.time, strict=True))
    (tmp_path / "edgepack.toml").write_text(CONFIG)
    (tmp_path / "sent").mkdir()
    (tmp_path / "targets").mkdir()
    profile = (ROOT / "targets" / "web-wasm-desktop.toml").read_text()
    one_format = re.sub(r"formats = \[.*?\]", 'formats = ["onnx-float32"]', profile, flags=re.DOTALL)
    (tmp_path / "targets" / "web.toml").write_text(one_format)
    return tmp_path


def test_what_shoppers_click_and_send_changes_the_next_model_and_their_history_stays(orders: Path) -> None:
    edgepack(orders, "build")
    first = archive.read(orders / "out" / "web.edgepack")
    events = report(orders).data.events
    site = shutil.copytree(web_app.SAMPLE_APP, orders / "site")
    edgepack(orders, "embed", "out/web.edgepack", "--into", "site")
    with serve(site) as served, web_app.chromium() as browser:
        page, _ = web_app.opened(browser, f"{served.url}/")
        before = page.evaluate(RECOMMEND)
        # The two items that the shop sells least are now always taken one after the other.
        rare = _vocabulary(first)[-2:]
        for shopper in range(SENT):
            (orders / "sent" / f"{shopper}.csv").write_text(page.evaluate(CLICK, [*rare, *before["ids"][:3]]))

        edgepack(orders, "build")
        told = report(orders).data
        assert told.events == events + 5 * SENT
        assert told.source == f"orders.csv and {SENT} collected histories"
        done = edgepack(orders, "embed", "out/web.edgepack", "--into", "site")
        assert "updated" in done.stdout
        page.reload()
        page.wait_for_selector("body[data-ready=true]")
        after = page.evaluate(RECOMMEND)
    second = archive.read(orders / "out" / "web.edgepack")
    assert after["hash"] == second.content_hash != first.content_hash
    assert after["history"] == [*rare, *before["ids"][:3]], "an update keeps what the shopper picked"
    places = [_vocabulary(bundle).index(rare[0]) for bundle in (first, second)]
    assert places[1] < places[0], "what was sent counts: the vocabulary goes by popularity"
    names = b"".join(second.members.values())
    assert b"device-" not in names, "nobody who sent a history can be found in the bundle"


def _vocabulary(bundle: archive.Bundle) -> list[str]:

    words: list[Any] = json.loads(bundle.members["vocabulary.json"])
    return words
