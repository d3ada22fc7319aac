"""Search text -> the model's second input `query`: hashed character n-grams. This is the specification.

`query.mjs` and `QueryHasher.java` in `edgepack/embed/templates` say the same, and a test holds the three to
equal answers. Every step is defined on code points, so that no runtime's Unicode version can change one:

1. Read the first 256 code points (`text_limit`); a surrogate that stands alone is one.
2. Fold each: U+0300..036F (combining marks) and U+FE00..FE0F (variation selectors) vanish. A code point in
   `DECOMPOSED` gives its NFKD form without combining marks; those blocks decompose as in Unicode 3.2, which
   the standard guarantees for good. Every code point of that is then made lower case by `_LOWER` alone
   (A-Z, Greek, Cyrillic, a few Latin letters), and `_SPELLED` writes some Latin letters in a-z. Whatever else
   stands in the text stays as it is.
3. Cut into words: a code point separates words when it is below U+0080 and not of a-z or 0-9, or lies in
   `SEPARATORS`; all others make words.
4. Put U+0002 before and U+0003 behind each word. The n-grams, in this order: all words whole; of each word
   the runs of 3 code points, from left to right; of each word the runs of 4 (`sizes`).
5. Hash each n-gram by 32-bit FNV-1a (offset basis 2166136261 XOR 0x5EED, the `seed`; prime 16777619) over
   three bytes a code point, lowest first.
6. Its id is 1 + hash modulo `buckets`. The first Q distinct ids, in this order, left-aligned; 0 = padding.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgepack.rows import QueryHashing

DECOMPOSED = ((0x00C0, 0x024F), (0x0370, 0x03F8), (0x0400, 0x04FF), (0x1E00, 0x1FFF), (0xFF01, 0xFF5E))
SEPARATORS = ((0x0080, 0x00BF), (0x00D7, 0x00D7), (0x00F7, 0x00F7), (0x2000, 0x206F), (0x3000, 0x303F))

_MARKS = ((0x0300, 0x036F), (0xFE00, 0xFE0F))
# First and last capital of a block, and how far its small letters are.
_LOWER = (
    (0x0041, 0x005A, 32),
    (0x00C0, 0x00DE, 32),
    (0x0391, 0x03A9, 32),
    (0x0400, 0x040F, 80),
    (0x0410, 0x042F, 32),
)
_SPELLED = {
    "ß": "ss",
    "ẞ": "ss",
    "æ": "ae",
    "ð": "d",
    "ø": "o",
    "þ": "th",
    "Đ": "d",
    "đ": "d",
    "Ħ": "h",
    "ħ": "h",
    "ı": "i",
    "Ł": "l",
    "ł": "l",
    "Ŋ": "n",
    "ŋ": "n",
    "Œ": "oe",
    "œ": "oe",
    "Ŧ": "t",
    "ŧ": "t",
    "ς": "σ",
}
_BEGIN, _END = "\x02", "\x03"
_BASIS, _PRIME = 2166136261, 16777619


def hashed(text: str, hashing: QueryHashing) -> NDArray[np.int32]:
    """Return the ids of `text`, int32 [Q], values 0..`buckets`: the first Q distinct ones, 0 = padding."""
    ids = dict.fromkeys(1 + _hash(gram, hashing.seed) % hashing.buckets for gram in ngrams(text, hashing))
    row = np.zeros(hashing.length, np.int32)
    first = list(ids)[: hashing.length]
    row[: len(first)] = first
    return row


def hashed_all(texts: Iterable[str], hashing: QueryHashing) -> NDArray[np.int32]:
    """Return the ids of each text, int32 [texts, Q]."""
    rows = [hashed(text, hashing) for text in texts]
    return np.stack(rows) if rows else np.zeros((0, hashing.length), np.int32)


def indexed(texts: NDArray[np.object_], hashing: QueryHashing) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return (index int32 [texts], ids int32 [n + 1, Q]): each text's row among the distinct ones.

    Row 0 is all padding: it stands for "" and for every text without a word.
    """
    distinct, index = np.unique(texts.astype(str), return_inverse=True)
    ids = hashed_all(distinct.tolist(), hashing)
    ids, place = np.unique(
        np.concatenate([np.zeros((1, hashing.length), np.int32), ids]), axis=0, return_inverse=True
    )
    return place[1:][index].astype(np.int32), ids


def ngrams(text: str, hashing: QueryHashing) -> Iterator[str]:
    """Yield the marked words of `text`, then their runs of 3 and of 4 code points; with repetitions."""
    words = [f"{_BEGIN}{word}{_END}" for word in _words(text[: hashing.text_limit])]
    yield from words
    for size in hashing.sizes:
        for word in words:
            yield from (word[start : start + size] for start in range(len(word) - size + 1))


def _words(text: str) -> list[str]:
    folded = "".join(_folded(character) for character in text)
    parted = "".join(" " if _separates(ord(part)) else part for part in folded)
    return [word for word in parted.split(" ") if word]


@lru_cache(1 << 12)
def _folded(character: str) -> str:
    if _within(ord(character), _MARKS):
        return ""
    parts = character
    if _within(ord(character), DECOMPOSED):
        parts = unicodedata.normalize("NFKD", character)
    kept = (_lower(part) for part in parts if not _within(ord(part), _MARKS))
    return "".join(_SPELLED.get(part, part) for part in kept)


def _lower(character: str) -> str:
    point = ord(character)
    shift = next((by for first, last, by in _LOWER if first <= point <= last), 0)
    return chr(point + shift) if point != 0xD7 else character


def _separates(point: int) -> bool:
    if point < 0x80:
        return not (0x30 <= point <= 0x39 or 0x61 <= point <= 0x7A)
    return _within(point, SEPARATORS)


def _within(point: int, blocks: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= point <= last for first, last in blocks)


@lru_cache(1 << 18)
def _hash(gram: str, seed: int) -> int:
    value = _BASIS ^ seed
    for point in map(ord, gram):
        for byte in (point & 255, point >> 8 & 255, point >> 16):
            value = (value ^ byte) * _PRIME & 0xFFFFFFFF
    return value
