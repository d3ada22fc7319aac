"""What the synthetic shop's customers type before they buy: noisy parts of the title of what they bought.

Every thing has a brand, a material and a noun of its own; a piece also has its colour or size. A search names
some of these, and may have a typing error, an unfinished last word or capitals. Some things are bought
without a search. Words are shared by many things, so a search alone seldom tells the item: the style that a
shopper keeps to, which stands in the history, tells the rest.
"""

import numpy as np
from numpy.typing import NDArray

from edgepack.data.shop import PIECES


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_BRANDS = _words(
    "alder bergen corvo delmar eskil fjord garnet hollis indra jasper kestrel lumen marlow nordan osprey "
    "pemba quill rowan sorrel tamsin"
)
_MATERIALS = _words(
    "oak linen copper velvet marble bamboo cotton glass leather steel wool ceramic cork walnut paper slate"
)
_NOUNS = _words(
    "lamp teapot basket candle cushion mirror blanket garland lantern napkin notebook platter ribbon tray "
    "trinket umbrella vase wreath apron bunting clock doormat frame jug"
)
_COLOURS = _words("crimson navy olive amber ivory teal coral charcoal lilac mustard rose turquoise")
_SIZES = _words("mini 10cm 15cm 20cm 25cm 30cm 40cm 50cm 60cm 80cm jumbo giant")
# Coprime to the number of triples, so that neighbours in the catalogue share no words by rule.
_STEP = 2_003

_NO_SEARCH = 0.35
_NAMES = {"brand": 0.3, "material": 0.4, "noun": 0.9, "style": 0.35}
_TYPING_ERROR, _UNFINISHED, _CAPITALS = 0.15, 0.2, 0.1
_SHORTEST_PREFIX = 3


def title(item: str) -> dict[str, str]:
    """Return the words of an item's title, given its id: brand, material, noun, and a piece's style."""
    kind, thing, *style = item.split("-")
    number = int(thing)
    place = (number * 2 + (kind == "piece")) * _STEP
    words = {
        "brand": _BRANDS[place % len(_BRANDS)],
        "material": _MATERIALS[place // len(_BRANDS) % len(_MATERIALS)],
        "noun": _NOUNS[place // (len(_BRANDS) * len(_MATERIALS)) % len(_NOUNS)],
    }
    if style:
        # Pieces come in colours and sizes in turn.
        styles = _SIZES if number % PIECES % 2 else _COLOURS
        words["style"] = styles[int(style[0])]
    return words


def queries(items: NDArray[np.object_], seed: int) -> NDArray[np.object_]:
    """Return a search text for each event, object [events], "" for none; the arguments alone decide them.

    `items`: the id of the item that each event bought, object [events], as `make_shop` names them.
    """
    generator = np.random.default_rng([seed, 1])
    titles = {item: title(item) for item in set(items.tolist())}
    silent = generator.random(len(items)) < _NO_SEARCH
    named = generator.random((len(items), len(_NAMES))) < list(_NAMES.values())
    noise = generator.random((len(items), 4))

    def words(row: int) -> list[str]:
        known = titles[items[row]]
        return [known[name] for name, said in zip(_NAMES, named[row], strict=True) if said and name in known]

    texts = ["" if silent[row] else _typed(words(row), noise[row]) for row in range(len(items))]
    return np.array(texts, object)


def _typed(words: list[str], noise: NDArray[np.float64]) -> str:
    if not words:
        return ""
    error, unfinished, capitals, where = noise
    if error < _TYPING_ERROR:
        at = int(where * len(words))
        words[at] = _mistyped(words[at], error / _TYPING_ERROR)
    if unfinished < _UNFINISHED:
        left = _SHORTEST_PREFIX + int(unfinished / _UNFINISHED * len(words[-1]))
        words[-1] = words[-1][:left]
    text = " ".join(words)
    return text.upper() if capitals < _CAPITALS else text


def _mistyped(word: str, where: float) -> str:
    """Swap two neighbouring letters."""
    at = int(where * (len(word) - 1))
    return word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
