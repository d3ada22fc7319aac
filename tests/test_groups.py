"""Groups of users: who is in which, what each loses, and a budget that a mean alone would have passed."""

import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgepack.budget import judge
from edgepack.config import load_config
from edgepack.data.types import EvaluationSet, Sequences
from edgepack.errors import DataError
from edgepack.evaluate import groups
from edgepack.evaluate.examples import chosen
from edgepack.evaluate.paired import drop, estimate
from edgepack.evaluate.ranking import Evaluation, overlap
from edgepack.profiles import Budget, merged
from edgepack.results import Estimate, Measurement, Quality, Verdict
from edgepack.stages import Place, logs
from edgepack.stages import groups as stage
from edgepack.stages.examples import shown
from edgepack.store import Store

NOTHING = Measurement(target="t", artifact_sha256="0", numbers=())


def sequences(*rows: list[int]) -> Sequences:
    items = np.array([item for row in rows for item in row], np.int32)
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return Sequences(items, offsets, np.arange(len(items), dtype=np.int32))


def test_history_lengths_are_cut_at_their_quartiles_and_the_groups_say_where():
    found = groups.by_activity(sequences(*([1] * n for n in (1, 2, 3, 4, 5, 6, 7, 80))))
    assert found.names == ("1 to 2 events", "3 to 4 events", "5 to 6 events", "7 to 80 events")
    assert found.member.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_equal_quartiles_make_one_group():
    found = groups.by_activity(sequences(*([1] * n for n in (3, 3, 3, 3, 3, 3, 3, 9))))
    assert found.names == ("3 to 3 events", "4 to 9 events")
    assert found.member.tolist() == [0] * 7 + [1]
    assert groups.by_activity(sequences([1], [1])).names == ("1 to 1 events",)


def test_the_head_holds_half_of_the_events_and_an_unseen_item_is_of_the_tail():
    counts = np.array([0, 10, 50, 5, 20, 15, 0])
    assert groups.popularity_classes(counts).tolist() == [-1, 2, 0, 2, 1, 1, 2]


def test_of_several_targets_the_median_one_decides():
    counts = np.array([0, 50, 30, 20])  # head, middle, tail
    targets = sequences([3], [1, 3, 1], [3, 2], [3, 1, 3, 1])
    assert groups.by_popularity(targets, counts).member.tolist() == [2, 0, 1, 0]


def test_small_declared_groups_go_together_and_those_without_a_label_stay_out():
    labels = ["b"] * 12 + ["a"] * 10 + ["c"] * 6 + ["d"] * 4 + [""] * 3
    found = groups.declared("country", labels)
    assert found.names == ("a", "b", "others (2 groups)")
    assert found.member.tolist() == [1] * 12 + [0] * 10 + [2] * 10 + [-1] * 3
    # Three people are too few to be told of, alone or as "others".
    assert groups.declared("country", ["a"] * 10 + ["c"] * 3).names == ("a",)


def evaluated(hits: np.ndarray, seed: int) -> Evaluation:
    top = np.random.default_rng(seed).permuted(
        np.tile(np.arange(1, 31, dtype=np.int32), (len(hits), 1)), axis=1
    )
    return Evaluation({"ndcg@10": hits, "hr@10": (hits > 0).astype(float)}, top[:, :10])


def test_a_group_loses_what_its_users_alone_lose():
    generator = np.random.default_rng(0)
    before = evaluated(generator.random(300) * (generator.random(300) < 0.4), 1)
    after = evaluated(generator.random(300) * (generator.random(300) < 0.4), 2)
    one = groups.Grouping("half", ("first", "nobody", "second"), np.repeat([0, 2], 150))
    first, second = groups.losses(before, after, [one], seed=5)
    for found, rows in ((first, slice(0, 150)), (second, slice(150, 300))):
        for name in ("ndcg@10", "hr@10"):
            alone = drop(name, before.metrics[name][rows], after.metrics[name][rows], 5)
            assert msgspec.structs.astuple(found.drops[name])[1:] == pytest.approx(
                msgspec.structs.astuple(alone)[1:]
            )
        assert found.overlap_at_10 == estimate(overlap(before.top10[rows], after.top10[rows]), 5)
        assert found.served["hr@10"] == int(before.metrics["hr@10"][rows].sum())
    assert (first.group, second.group, second.users) == ("first", "second", 150)


def test_a_group_that_the_float_model_never_serves_has_nothing_to_lose():
    before, after = evaluated(np.repeat([0.0, 1.0], 50), 1), evaluated(np.ones(100), 1)
    unserved, served = groups.losses(
        before, after, [groups.Grouping("g", ("a", "b"), np.repeat([0, 1], 50))], 1
    )
    assert unserved.drops == {}
    assert unserved.served == {"ndcg@10": 0, "hr@10": 0}
    assert served.drops["ndcg@10"].value == 0


def verdicts(
    before: np.ndarray, after: np.ndarray, names: tuple[str, ...], budget: Budget
) -> dict[str, Verdict]:
    """Judge two runs over users of equal groups, by NDCG@10."""
    float_, compressed = evaluated(before, 1), evaluated(after, 1)
    grouping = groups.Grouping(
        "history length", names, np.repeat(np.arange(len(names)), len(before) // len(names))
    )
    quality = Quality(
        metrics={"ndcg@10": Estimate(value=float(after.mean()))},
        drops={"ndcg@10": drop("ndcg@10", before, after, 3)},
        overlap_at_10=1.0,
        users=len(before),
        runtime="r",
        protocol="p",
        groups=groups.losses(float_, compressed, [grouping], 3),
    )
    found = judge(budget, model_bytes=1, download_bytes=1, measurement=NOTHING, quality=quality)
    return {verdict.limit: verdict for verdict in found}


BUDGET = Budget(max_drop={"ndcg@10": 0.01})


def test_a_compression_that_hurts_cold_users_fails_although_the_mean_is_fine():
    before = np.full(2_000, 0.5)
    # A quarter of the users loses 12 %, the others gain 4 %: the mean does not move.
    after = before * np.repeat([0.88, 1.04, 1.04, 1.04], 500)
    found = verdicts(before, after, ("1 to 4 events", "b", "c", "d"), BUDGET)
    assert found["drop of ndcg@10"].status == "within"
    assert found["group drop of ndcg@10"].status == "over"
    assert found["group drop of ndcg@10"].found == pytest.approx(0.12)
    assert "history length 1 to 4 events, 500 users" in found["group drop of ndcg@10"].note


def test_a_group_may_lose_five_times_what_the_mean_may_unless_the_budget_says():
    before = np.full(2_000, 0.5)
    after = before * np.repeat([0.96, 1.01, 1.01, 1.01], 500)
    told = merged(BUDGET, Budget(max_group_drop={"ndcg@10": 0.03}))
    assert verdicts(before, after, ("a", "b", "c", "d"), BUDGET)["group drop of ndcg@10"].status == "within"
    assert verdicts(before, after, ("a", "b", "c", "d"), told)["group drop of ndcg@10"].status == "over"


def test_a_loss_that_too_few_users_rule_out_is_undecided():
    # 30 of 60 users lose their hit and 26 others get one: 7 % less, give or take 20.
    before = np.repeat([1.0, 0.0], 60)
    after = np.repeat([0.0, 1.0, 0.0], [30, 56, 34])
    budget = Budget(max_group_drop={"ndcg@10": 0.2}, least_group_users=60)
    found = verdicts(before, after, ("all",), budget)["group drop of ndcg@10"]
    assert (found.found, found.status) == (pytest.approx(4 / 60), "undecided")


def test_small_groups_are_shown_and_not_judged_and_a_written_limit_never_passes_unmeasured():
    before, after = np.full(300, 0.5), np.full(300, 0.5) * np.repeat([0.5, 1.0], 150)
    assert "group drop of ndcg@10" not in verdicts(before[100:200], after[100:200], ("a", "b"), BUDGET)
    written = Budget(max_group_drop={"ndcg@10": 0.05})
    found = verdicts(before[100:200], after[100:200], ("a", "b"), written)["group drop of ndcg@10"]
    assert found.status == "not measured"
    assert "no group of users has 100" in found.note
    lowered = merged(written, Budget(least_group_users=50))
    assert (
        verdicts(before[100:200], after[100:200], ("a", "b"), lowered)["group drop of ndcg@10"].status
        == "over"
    )
    one_small = np.concatenate([before[:150], np.zeros(100), before[:50]])
    assert "1 too small" in verdicts(one_small, one_small, ("a", "b"), BUDGET)["group drop of ndcg@10"].note


def place(folder: Path, quality: str) -> Place:
    data = '[data]\npath = "log.csv"\n[data.columns]\ntime = ""\n[model]\nfamily = "sasrec"\n'
    (folder / "edgepack.toml").write_text(f"{data}[quality]\n{quality}\n")
    rows = [
        (f"user{u}", f"i{(u * 7 + n) % 20}", "DE" if u < 30 else "FR") for n in range(6) for u in range(60)
    ]
    with (folder / "log.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("user", "item", "country"), *rows])
    return Place(load_config(folder / "edgepack.toml"), folder, Store(folder / "store"), lambda *told: None)


def grouped(where: Place) -> dict[str, list[tuple[str, int]]]:
    split = logs.split_log(where)
    kept = stage.groupings(where, split)
    users = logs.facts(split).test_users
    same = Evaluation({"ndcg@10": np.ones(users)}, np.ones((users, 10), np.int32))
    found: dict[str, list[tuple[str, int]]] = {}
    for one in stage.losses(kept, same, same, 1):
        found.setdefault(one.by, []).append((one.group, one.users))
    return found


def test_declared_groups_come_from_a_table_or_a_column_and_no_user_is_kept(tmp_path):
    (tmp_path / "users.csv").write_text("user,plan,age\n" + "".join(f"user{u},free,\n" for u in range(40)))
    where = place(tmp_path, 'groups = "users.csv"\ngroup_columns = ["country"]')
    with pytest.raises(DataError, match="'age' names no group for any of the 60 test users"):
        grouped(where)
    (tmp_path / "users.csv").write_text("user,plan\n" + "".join(f"user{u},free\n" for u in range(40)))
    found = grouped(where)
    assert found["plan"] == [("free", 40)]
    assert found["country"] == [("DE", 30), ("FR", 30)]
    assert list(found) == ["history length", "target's popularity", "plan", "country"]
    kept = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert kept
    assert not any(b"user1" in data for data in kept)


@pytest.mark.parametrize(
    ("quality", "table", "said"),
    [
        ('groups = "none.csv"', "", "quality.groups none.csv: there is no such file"),
        ('groups = "users.csv"', "", "is no table of users"),
        ('groups = "users.csv"', "user\nuser1\n", "has one column"),
        ('groups = "users.csv"', "user,plan\nuser1\n", "line 2: has 1 columns"),
        (
            'groups = "users.csv"',
            "user,id\n" + "".join(f"user{u},{u}\n" for u in range(60)),
            "makes 60 groups",
        ),
        ('group_columns = ["plan"]', "", "plan"),
    ],
)
def test_a_wrong_declaration_is_named(tmp_path, quality, table, said):
    (tmp_path / "users.csv").write_text(table)
    with pytest.raises(DataError, match=said):
        grouped(place(tmp_path, quality))


def test_examples_are_the_most_changed_the_median_and_the_least_changed_user():
    before = np.tile(np.arange(1, 11, dtype=np.int32), (5, 1))
    after = before.copy()
    after[3, :6] = np.arange(11, 17)  # keeps four
    after[1, :2] = (11, 12)  # keeps eight
    after[0, :2] = (11, 12)
    after[0, 2:4] = (4, 3)  # keeps eight, two of them in other places
    nothing: dict[str, np.ndarray] = {}
    found = chosen(Evaluation(nothing, before), Evaluation(nothing, after))
    assert found == [("most changed", 3), ("most changed", 0), ("median", 1), ("least changed", 4)]
    alone = chosen(Evaluation(nothing, before[:1]), Evaluation(nothing, after[:1]))
    assert alone == [("most changed", 0)]


def test_an_example_shows_item_ids_and_a_number_that_tells_nothing_of_the_user():
    users = EvaluationSet(sequences([1], [1, 2, 3, 1, 2, 3]), sequences([2], [4]))
    lists = np.zeros((2, 10), np.int32)
    lists[:, 0] = 4
    changed = lists.copy()
    changed[1, 0] = 5
    nothing: dict[str, np.ndarray] = {}
    vocabulary = ("", "a", "b", "c", "d", "e")
    first, second = shown(Evaluation(nothing, lists), Evaluation(nothing, changed), users, vocabulary)
    assert (first.number, first.history, first.targets) == (1, ("b", "c", "a", "b", "c"), ("d",))
    assert (first.before, first.after, first.overlap_at_10) == (("d",), ("e",), 0.0)
    assert (second.number, second.before, second.overlap_at_10) == (2, ("d",), 1.0)
