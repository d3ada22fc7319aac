"""Which contender ships: the cheapest whose exact figures hold, on the host and then on the target."""

from pathlib import Path
from typing import cast

import msgspec
import pytest

from edgepack import ship
from edgepack.errors import MeasureError
from edgepack.profiles import Profile, load_profiles
from edgepack.results import Candidate
from edgepack.ship import Choice, Contender, Shipment
from edgepack.stages import Place
from edgepack.stages.figures import Proof
from edgepack.store import Kept
from tests.sample_result import PHONE_BUDGET, arm_numbers, candidate

ARM = load_profiles()["android-arm64-low"]
CHEAPEST, NEXT = ("prune50-qat", "tflite-int8"), ("ptq", "tflite-dynamic")


def contender(recipe: str, file_format: str) -> Contender:
    figures = arm_numbers(recipe, file_format, 0.5)
    judged = candidate(ARM.name, recipe, file_format, figures, PHONE_BUDGET, 0)
    loose = tuple(msgspec.structs.replace(verdict, status="within") for verdict in judged.verdicts)
    return Contender(msgspec.structs.replace(judged, verdicts=loose), Kept(Path(file_format), file_format))


def named(found: Choice) -> tuple[str, str] | None:
    chosen = found.contender
    return (chosen.candidate.artifact.recipe, chosen.candidate.artifact.format) if chosen else None


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    proofs: dict[tuple[str, str], Proof],
    on_target: dict[tuple[str, str], Candidate] | None = None,
    unclear: tuple[str, str] | None = None,
) -> Choice:
    """Choose between CHEAPEST and NEXT, with what a proof, the target and the goldens would say."""
    known = {pair: contender(*pair) for pair in (NEXT, CHEAPEST)}
    pair_of = {str(one.made.path): pair for pair, one in known.items()}

    def prove(place: Place, split: Kept, made: Kept, profile: Profile, host: object) -> Proof:
        return proofs[pair_of[str(made.path)]]

    def goldens(
        place: Place, split: Kept, shipment: Shipment, profile: Profile, made: Kept, proof: Proof
    ) -> bytes:
        if pair_of[str(made.path)] == unclear:
            raise MeasureError("goldens", "no history has 10 clearly separated scores", remedy="None.")
        return b"cases"

    monkeypatch.setattr(ship, "prove", prove)
    monkeypatch.setattr(ship, "_goldens", goldens)

    def ranked_on_target(one: Contender) -> Contender:
        artifact = one.candidate.artifact
        return one._replace(candidate=(on_target or {})[artifact.recipe, artifact.format])

    nothing = cast(Place, None), cast(Kept, None), cast(Shipment, None)
    return ship.choose(*nothing, ARM, list(known.values()), "download", ranked_on_target)


def proof(failure: str = "", overlap: float = 1.0) -> Proof:
    return Proof(text=failure or "equal", failure=failure, largest_difference=0.0, overlap_at_10=overlap)


def over(one: Candidate) -> Candidate:
    verdicts = (*one.verdicts[:-1], msgspec.structs.replace(one.verdicts[-1], status="over"))
    return msgspec.structs.replace(one, verdicts=verdicts)


def test_the_fewest_download_bytes_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, {CHEAPEST: proof(), NEXT: proof()})
    assert named(found) == CHEAPEST
    assert (found.goldens, found.dropped) == (b"cases", ())


def test_other_lists_on_the_target_do_not_ship(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, {CHEAPEST: proof("200 of 512 lists", overlap=0.95), NEXT: proof()})
    assert named(found) == NEXT
    assert [one.format for one in found.dropped] == ["tflite-int8"]
    assert "200 of 512 lists" in found.dropped[0].reason


def test_nearly_equal_answers_ship_when_the_targets_own_ranking_of_all_users_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = contender(*CHEAPEST).candidate
    assert before.quality is not None
    again = msgspec.structs.replace(
        before, quality=msgspec.structs.replace(before.quality, runtime="litert-arm64")
    )
    proofs = {CHEAPEST: proof("511 of 512 lists", overlap=0.999), NEXT: proof()}
    found = chosen(monkeypatch, proofs, {CHEAPEST: again})
    assert named(found) == CHEAPEST
    assert found.proof is not None
    assert "511 of 512 lists; all 6040 users were therefore ranked by litert-arm64 itself" in found.proof.text
    runtimes = {c.candidate.quality.runtime for c in found.contenders if c.candidate.quality}
    assert runtimes == {"litert-arm64", "LiteRT 1.4.0"}


def test_a_ranking_on_the_target_that_misses_the_budget_does_not_ship(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = over(contender(*CHEAPEST).candidate)
    proofs = {CHEAPEST: proof("511 of 512 lists", overlap=0.999), NEXT: proof()}
    found = chosen(monkeypatch, proofs, {CHEAPEST: again})
    assert named(found) == NEXT
    assert "overlap@10 over" in found.dropped[0].reason


def test_no_golden_cases_drop_a_candidate_and_not_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, {CHEAPEST: proof(), NEXT: proof()}, unclear=CHEAPEST)
    assert named(found) == NEXT
    assert "clearly separated" in found.dropped[0].reason


def test_nothing_ships_when_nothing_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    differs = proof("other lists", overlap=0.5)
    found = chosen(monkeypatch, {CHEAPEST: differs, NEXT: differs})
    assert named(found) is None
    assert found.why == "none of 2 candidates is within budget: not holding on the target for 2"
