"""D8, which turns Java classes into Android's dex: one jar, kept where `edgepack setup` keeps its tools.

It is a build tool of these tests and goes into nothing that edgepack makes. Debian has no dexer that takes
Java 8; this one is D8 3.3.28 in Google's bundletool, which a Python package carries.
`python -m tests.android.dexer` fetches it.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from edgepack.store import sha256_of, write_atomic
from edgepack.tools import home

MAIN = "com.android.tools.r8.D8"
SHA256 = "2d4ad908faea64047c1cc9cb747e6aa667c6ab192e09607bd16b67246a8cd6ae"
_MEMBER = "mobsf/StaticAnalyzer/tools/bundletool-all-1.17.2.jar"
_PIN = "mobsf==4.4.0 --hash=sha256:74329efc7eee885ca6b9448726ca448c6f5c7ca80ec3dc9a98ee11fb7cd7c0d4"


class UnreachableError(Exception):
    """The package index does not answer, or no longer has the package."""


def fetch() -> Path:
    """Return the jar, fetching it when it is not there whole. Raises UnreachableError."""
    place = home() / "android" / Path(_MEMBER).name
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        if not place.is_file() or sha256_of(place) != SHA256:
            _fetch(place)
    return place


def _fetch(place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        pin = Path(scratch) / "pin.txt"
        pin.write_text(_PIN + "\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps"]
        done = subprocess.run(
            [*pip, "--require-hashes", "--only-binary=:all:", "-d", scratch, "-r", pin],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "DO NOT MATCH THE HASHES" not in done.stderr, done.stderr
        if done.returncode:
            raise UnreachableError((done.stderr.strip().splitlines() or ["pip said nothing"])[-1])
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            write_atomic(place, wheel.read(_MEMBER))
    assert sha256_of(place) == SHA256


if __name__ == "__main__":
    try:
        sys.stdout.write(f"dexer: {fetch()}\n")
    except UnreachableError as error:
        sys.stderr.write(f"The dexer cannot be fetched; the tests that need it will be skipped. {error}\n")
