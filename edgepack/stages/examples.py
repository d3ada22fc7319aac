"""A handful of test users before and after: for the report, and for no bundle."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgepack.profiles import Profile
from edgepack.results import Example, Quality
from edgepack.runtimes.engines import device_engine, host_engine
from edgepack.stages import Place
from edgepack.stages.figures import evaluation_of, ranked
from edgepack.store import Kept

if TYPE_CHECKING:
    from edgepack.data.types import EvaluationSet
    from edgepack.evaluate.ranking import Evaluation

TAIL = 5
"""How many of a user's newest items are shown."""


def examples(
    place: Place, split: Kept, reference: Kept, made: Kept, profile: Profile, quality: Quality
) -> tuple[Example, ...]:
    """Return users with the lists of the float model and of an artifact, in the runtime of its `quality`.

    Users are numbered anew: neither their ids nor their places in the log can be told from it.
    """
    from edgepack.data.split import load_split

    host = host_engine(profile)
    engine = host if quality.runtime == host.name else device_engine(profile)
    after = evaluation_of(ranked(place, split, made, engine))
    whole, vocabulary = load_split(split.path)
    return shown(evaluation_of(reference), after, whole.test, vocabulary)


def shown(
    before: "Evaluation", after: "Evaluation", users: "EvaluationSet", vocabulary: tuple[str, ...]
) -> tuple[Example, ...]:
    """Return the chosen users with their items' ids; `vocabulary[i]` is that of item i."""
    from edgepack.evaluate.examples import chosen
    from edgepack.evaluate.ranking import overlap

    def ids(items: Iterable[int]) -> tuple[str, ...]:
        return tuple(vocabulary[item] for item in items if item)

    shared = overlap(before.top10, after.top10)
    return tuple(
        Example(
            number=number,
            why=why,
            history=ids(users.history.of(user)[-TAIL:]),
            targets=ids(users.targets.of(user)),
            before=ids(before.top10[user]),
            after=ids(after.top10[user]),
            overlap_at_10=float(shared[user]),
        )
        for number, (why, user) in enumerate(chosen(before, after), 1)
    )
