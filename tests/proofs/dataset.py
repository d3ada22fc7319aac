"""`make proof-NAME`: the whole build on a public set, its figures written to tests/proofs/results/NAME.md.

Resumable: the store under .edgepack/proofs keeps every finished stage and epoch. The set must have been
taken in before (`edgepack data NAME --from PATH`).
"""

import subprocess
import sys
from pathlib import Path

import msgspec

from edgepack.report import markdown
from edgepack.results import BuildResult

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def commit() -> str:
    """Return the commit that the working tree stands at, marked when files differ from it."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def main(name: str) -> None:
    """Build `name` and write its results."""
    out = ROOT / ".edgepack" / "proofs" / name
    words = ["build", "-c", str(HERE / f"{name}.toml"), "--store", str(out.parent / "store")]
    done = subprocess.run([sys.executable, "-m", "edgepack", *words, "--out", str(out)], check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    write(name, out)


def write(name: str, out: Path) -> None:
    """Write the results of a finished build of `name` in `out`."""
    result = msgspec.json.decode((out / "report.json").read_bytes(), type=BuildResult)
    versions = ", ".join(f"{package} {number}" for package, number in result.versions.items())
    head = f"<!-- make proof-{name}; commit {commit()}; finished {result.finished_at}; {versions} -->\n\n"
    (HERE / "results" / f"{name}.md").write_text(head + markdown.render(result))


if __name__ == "__main__":
    main(sys.argv[1])
