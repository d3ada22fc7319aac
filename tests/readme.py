"""Writes the generated parts of the README: `python -m tests.readme [OUT]` after `make demo` into OUT."""

import re
import subprocess
import sys
from pathlib import Path

from edgepack.profiles import load_profiles
from edgepack.report.tables import target_rows
from tests.proofs import support

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def block(name: str) -> re.Pattern[str]:
    """Match a generated block; group 2 is its content."""
    return re.compile(rf"(<!-- {name}[^>]*-->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


def targets_table() -> str:
    """Return the target table as Markdown."""
    heading, *rows = target_rows(load_profiles())
    cells = [heading, tuple("---" for _ in heading), *[(f"`{row[0]}`", *row[1:]) for row in rows]]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def support_table() -> str:
    """Return the support matrix that the last proof wrote down, as Markdown."""
    return support.rendered(support.recorded())


def commands(out: str) -> list[str]:
    """Return the six commands whose real output the README shows."""
    return [
        "edgepack doctor",
        "edgepack build -t web-wasm-mobile -t android-arm64-low --plan",
        f"edgepack report {out}",
        f"edgepack check {out}/android-arm64-low.edgepack",
        f"edgepack measure {out}/model.tflite -t android-arm64-high",
        f"edgepack explain {out}/model.tflite -t android-arm64-low --top 8",
    ]


def shown(command: str) -> str:
    """Return a command with what it printed, the first 30 lines of it."""
    words = [sys.executable, "-m", *command.split()]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = done.stdout.rstrip("\n").splitlines()
    more = [f"… ({len(lines) - 30} more lines)"] if len(lines) > 30 else []
    return "\n".join([f"$ {command}", *lines[:30], *more]) + "\n"


def replaced(text: str, name: str, content: str) -> str:
    """Return `text` with the content of a generated block replaced."""
    return block(name).sub(lambda match: match[1] + content + match[3], text)


def main() -> None:
    """Rewrite README.md in place."""
    text = replaced(README.read_text(), "targets", targets_table())
    text = replaced(text, "support", support_table())
    if len(sys.argv) > 1:
        sections = "".join(f"```text\n{shown(command)}```\n" for command in commands(sys.argv[1]))
        text = replaced(text, "commands", sections)
    README.write_text(text)


if __name__ == "__main__":
    main()
