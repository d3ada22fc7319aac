"""`make proof-kill`: `kill -9` at 20 random moments of a small build, then the same content hashes.

A round is a build from an empty store that is killed again and again, at moments drawn over half of a clean
build's length, and then let finish; rounds go on until twenty kills have struck a running build. Every
finished round is recorded, so that the proof can be interrupted itself.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from edgepack.results import BuildResult

KILLS, MOST_A_ROUND = 20, 5
RECORD = Path(__file__).parent / "results" / "kill.json"
CONFIG = """
name = "small"
[data.shop]
items = 500
users = 300
[model]
family = "sasrec"
history_length = 12
[model.hyper]
width = 16
ffn_width = 16
[training]
epochs = 4
[compress]
recipes = ["qat"]
[targets]
names = ["android-arm64-low", "web-wasm-desktop"]
[quality]
noise_floor = false
[budget."*"]
min_overlap_at_10 = 0.0
max_drop = { "ndcg@10" = 1.0 }
[budget."web-*"]
load_ms = 60000.0
latency_ms = 60000.0
"""


def command(folder: Path) -> list[str]:
    words = ["build", "-c", str(folder / "edgepack.toml"), "--store", str(folder / "store")]
    return [sys.executable, "-m", "edgepack", *words, "--out", str(folder / "out")]


def finished(folder: Path) -> dict[str, str | None]:
    """Build to the end and return each target's content hash."""
    (folder / "edgepack.toml").write_text(CONFIG)
    done = subprocess.run(command(folder), capture_output=True, check=False, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    report = msgspec.json.decode((folder / "out" / "report.json").read_bytes(), type=BuildResult)
    return {target.target: target.content_hash for target in report.targets}


def killed(folder: Path, after_s: float) -> bool:
    """Start a build and kill it after a while; return whether it was still running then."""
    (folder / "edgepack.toml").write_text(CONFIG)
    child = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        child.wait(after_s)
        return False
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        return True


def main() -> None:
    """Run the rounds that are not recorded yet and write down what came of them."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if "clean" not in record:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            record = {"clean": finished(Path(folder)), "clean_s": time.monotonic() - began, "rounds": []}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    while (struck := sum(sum(told["was_running"]) for told in record["rounds"])) < KILLS:
        moments = random.Random(len(record["rounds"]))  # noqa: S311  not for secrets
        delays: list[float] = []
        hit: list[bool] = []
        with tempfile.TemporaryDirectory() as folder:
            while all(hit) and len(hit) < MOST_A_ROUND:
                delays.append(moments.uniform(1.0, record["clean_s"] * 0.5))
                hit.append(killed(Path(folder), delays[-1]))
            hashes = finished(Path(folder))
        equal = hashes == record["clean"]
        told = {"killed_after_s": delays, "was_running": hit, "hashes": hashes, "equal": equal}
        record["rounds"].append(told)
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        sys.stderr.write(f"{struck + sum(hit)}/{KILLS} kills: {'equal' if equal else 'DIFFERENT'}\n")
    if not all(told["equal"] for told in record["rounds"]):
        raise SystemExit("content hashes differ")


if __name__ == "__main__":
    main()
