"""Search text becomes the same ids in Python, JavaScript and Java, and whichever Unicode version runs."""

import hashlib
import json
import shutil
import subprocess
import unicodedata
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgepack.data import query
from edgepack.data.query import hashed, hashed_all, ngrams
from edgepack.rows import QueryHashing

ROOT = Path(__file__).parents[1]
HASHING = QueryHashing(length=24, buckets=4096)
WRITTEN_DOWN = "59dbc1518d33f5261ed6c4430516d17699fd6862640c5883a63af5388f03ecd6"

KNOWN = [
    "",
    "   ",
    "lamp",
    "Crimson LAMP, 20 cm",
    "İstanbul ıŞIK I i",
    "Große Straße ẞ",
    "ＦＵＬＬ－ｗｉｄｔｈ １２",
    "cafe\u0301 caf\u00e9 c\u0327a",
    "👍🏽 👩\u200d👩\u200d👧 ❤\ufe0f",
    "日本語 テスト 한국어 \u1112\u1161\u11ab",
    "מבחן عَرَبِيّ हिन्दी",
    "Ὀδυσσεύς ΣΊΣΥΦΟΣ ЁЖИК",
    "\ud83d lone \udc4d surrogates \udc4d\ud83d",
    "a\x00b\tc\nd\u00a0e\u2003f\u1680g\u3000h",
    "lamp " * 200,
    "x" * 5000,
    "\u01c4\u0132\u0149\u01f1 \u1fbe\u0345 \U0001f170 \u2460",
]
BLOCKS = ((0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x1E00, 0x206F))
BLOCKS += ((0x3000, 0x30FF), (0x4E00, 0x4EFF), (0xAC00, 0xACFF), (0xFF00, 0xFFEF), (0x1F300, 0x1F6FF))


def vectors() -> list[str]:
    """Return 1,000 texts: the known ones, and random ones out of all kinds of blocks."""
    generator = np.random.default_rng(20)
    texts = list(KNOWN)
    while len(texts) < 1_000:
        words = []
        for _ in range(generator.integers(1, 6)):
            first, last = BLOCKS[generator.integers(len(BLOCKS))]
            points = generator.integers(first, last + 1, generator.integers(1, 12))
            words.append("".join(chr(point) for point in points))
        texts.append(" ".join(words))
    return texts


def answers() -> list[list[int]]:
    return hashed_all(vectors(), HASHING).tolist()


def test_the_thousand_vectors_are_the_ones_written_down() -> None:
    told = json.dumps(answers(), separators=(",", ":"))
    assert hashlib.sha256(told.encode()).hexdigest() == WRITTEN_DOWN


def test_javascript_gives_the_same_thousand_vectors() -> None:
    node = shutil.which("node")
    assert node, "edgepack setup brings Node"
    asked = {
        "hashing": msgspec.to_builtins(HASHING),
        "texts": [[ord(character) for character in text] for text in vectors()],
    }
    done = subprocess.run(
        [node, ROOT / "tests/data/query_vectors.mjs"],
        input=json.dumps(asked).encode(),
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout) == answers()


@pytest.mark.skipif(not shutil.which("javac"), reason="no JDK: apt-get install openjdk-17-jdk-headless")
def test_java_gives_the_same_thousand_vectors(tmp_path: Path) -> None:
    library = ROOT / "edgepack/embed/templates/android/src/main/java"
    sources = (library / "edgepack/core/QueryHasher.java", ROOT / "tests/data/QueryVectors.java")
    subprocess.run(["javac", "--release", "8", "-Xlint:-options", "-d", tmp_path, *sources], check=True)
    words = [HASHING.spec, HASHING.length, HASHING.buckets, ",".join(map(str, HASHING.sizes))]
    words += [HASHING.seed, HASHING.text_limit]
    lines = "\n".join(" ".join(str(ord(character)) for character in text) for text in vectors()) + "\n"
    done = subprocess.run(
        ["java", "-Xshare:auto", "-cp", tmp_path, "QueryVectors", *map(str, words)],
        input=lines.encode(),
        capture_output=True,
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == answers()


def test_no_unicode_version_changes_what_is_decomposed() -> None:
    """Decompositions of assigned characters are frozen, so Unicode 3.2's must be all that there are."""
    points = [point for first, last in query.DECOMPOSED for point in range(first, last + 1)]
    changed = [
        hex(point)
        for point in points
        if unicodedata.normalize("NFKD", chr(point)) != unicodedata.ucd_3_2_0.normalize("NFKD", chr(point))
    ]
    assert not changed


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Crimson Lamp", "crimson  lamp!"),
        ("ＬＡＭＰ １２", "lamp 12"),
        ("caf\u00e9", "CAFE\u0301"),
        ("İSTANBUL IŞIK", "istanbul ışık"),
        ("Straße", "STRASSE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("❤\ufe0f", "❤"),
    ],
)
def test_spellings_of_one_text_hash_alike(left: str, right: str) -> None:
    assert hashed(left, HASHING).any()
    assert np.array_equal(hashed(left, HASHING), hashed(right, HASHING))


def test_ngrams_are_whole_words_then_runs_of_three_and_four() -> None:
    told = [gram.replace("\x02", "<").replace("\x03", ">") for gram in ngrams("Red-hat", HASHING)]
    assert told == [
        *("<red>", "<hat>"),
        *("<re", "red", "ed>", "<ha", "hat", "at>"),
        *("<red", "red>", "<hat", "hat>"),
    ]


def test_ids_are_distinct_left_aligned_and_never_beyond_the_buckets() -> None:
    for text in vectors():
        row = hashed(text, HASHING)
        ids = row[row > 0]
        assert len(set(ids.tolist())) == len(ids)
        assert not row[len(ids) :].any()
        assert row.dtype == np.int32
        assert row.max(initial=0) <= HASHING.buckets


def test_a_text_is_read_to_its_limit_and_no_further() -> None:
    same = "lamp" + " " * (HASHING.text_limit - 4)
    assert np.array_equal(hashed(same + "crimson", HASHING), hashed("lamp", HASHING))
