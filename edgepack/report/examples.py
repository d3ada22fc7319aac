"""Test users before and after: what the float model and the shipped one put on their lists."""

from typing import NamedTuple

from edgepack.results import BuildResult, Example

HEADER = ("user", "newest items", "took next", "float model", "shipped", "overlap@10")
NOTE = (
    "Chosen by rule: the most changed lists, the median, the least changed. Users are numbered anew. Items "
    "in brackets stand on one of the two lists only; what the user took next is marked with a star."
)


class Shown(NamedTuple):
    """The same users for all the targets that ship one file."""

    targets: str
    examples: tuple[Example, ...]


def shown(result: BuildResult) -> list[Shown]:
    """Return every set of examples once."""
    targets: dict[tuple[Example, ...], list[str]] = {}
    for target in result.targets:
        if target.examples:
            targets.setdefault(target.examples, []).append(target.target)
    return [Shown(", ".join(names), examples) for examples, names in targets.items()]


def rows(examples: tuple[Example, ...]) -> list[tuple[str, ...]]:
    """Return a row for each user, every cell ready to be read."""
    return [
        (
            f"{one.number}, {one.why}",
            ", ".join(one.history) or "none",
            ", ".join(one.targets),
            _listed(one.before, one.after, one.targets),
            _listed(one.after, one.before, one.targets),
            f"{one.overlap_at_10:.1f}",
        )
        for one in examples
    ]


def _listed(items: tuple[str, ...], other: tuple[str, ...], targets: tuple[str, ...]) -> str:
    told = [f"{item}*" if item in targets else item for item in items]
    return ", ".join(word if item in other else f"[{word}]" for word, item in zip(told, items, strict=True))
