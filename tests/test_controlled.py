"""Accuracy control in a build: units are layers and table bands, trials rank validation users, grids ship."""

from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from edgepack import levels, planning, ship
from edgepack.compress import steps
from edgepack.compress.recipes import RECIPES, Control, Grid, Tables, known
from edgepack.compress.tables import grid
from edgepack.compress.tables.controlled import LEVELS, MULTIPLES, Choices
from edgepack.config import load_config
from edgepack.data.types import EvaluationSet, Sequences
from edgepack.errors import ConfigError, DataError
from edgepack.report import markdown
from edgepack.results import Controlled, ControlledUnit
from edgepack.stages import Place, compression, configured, controlled, logs, models
from edgepack.store import Store
from tests.sample_result import sample_result
from tests.test_distil import write_log
from tests.test_fit import silent
from tests.test_tables import POPULARITY, build, on_grids

SETTINGS = Tables(control=Control(shares=(0.25, 0.75)), epochs=0)


@pytest.fixture(scope="module")
def choices():
    return Choices(build(), SETTINGS, SETTINGS.control, POPULARITY)


def test_units_are_bands_of_the_table_and_layers_and_finer_rungs_weigh_more(choices):
    names = [unit.name for unit in choices.units]
    assert names[:2] == ["item_embedding: 0 to 25 % of items", "item_embedding: 25 to 100 % of items"]
    assert len(names) == len(set(names)) > 6
    assert not any("scores" in name for name in names)  # it is the table, and goes with it
    for unit in choices.units:
        assert len(unit.bytes_by_rung) in (len(MULTIPLES), len(LEVELS))
        assert unit.bytes_by_rung[0] < unit.bytes_by_rung[-1]


def test_bands_of_equal_shares_are_units_of_their_own():
    settings = Tables(control=Control(shares=(0.25,) * 4), epochs=0)
    choices = Choices(build(), settings, settings.control, POPULARITY)
    names = [unit.name for unit in choices.units]
    assert len(names) == len(set(names))
    coarse = choices.settled({unit.name: 0 if unit.name == names[1] else unit.top for unit in choices.units})
    assert [band.multiple == coarse.bands[0].multiple for band in coarse.bands] == [True, False, True, True]


def test_what_is_tried_is_what_the_recipe_then_makes(choices):
    rungs = {unit.name: number % unit.top for number, unit in enumerate(choices.units)}
    tried, settings = choices.weights(rungs), choices.settled(rungs)
    assert settings.control is None
    made = on_grids(build(), settings, POPULARITY)
    table = tried["item_embedding/embeddings"]
    np.testing.assert_array_equal(tried["scores/kernel"], table.T)
    head = 1 + np.argsort(-POPULARITY[1:])[: len(POPULARITY) // 4]
    coarse = np.setdiff1d(np.arange(1, len(table)), head)
    finest = grid.rule_of(
        choices.weights({unit.name: unit.top for unit in choices.units})["item_embedding/embeddings"], Grid()
    ).steps.item()
    for rows, name in ((head, choices.units[0].name), (coarse, choices.units[1].name)):
        counts = table[rows] / (finest * MULTIPLES[rungs[name]])
        np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    np.testing.assert_allclose(made["item_embedding"], table, atol=1e-6)
    for name, values in tried.items():
        layer = name.partition("/")[0]
        if layer not in ("item_embedding", "scores"):
            assert len(np.unique(values)) <= 2 * LEVELS[rungs[name]] + 1
            assert settings.layers[layer] == Grid(levels=LEVELS[rungs[name]])


CONFIG = """
[data]
path = "log.csv"
[model]
family = "sasrec"
history_length = 8
[model.hyper]
width = 16
ffn_width = 16
blocks = 1
[training]
epochs = 6
[compress]
recipes = ["tight", "loose"]
[compress.own.tight]
from = "control-ptq"
tables.control = { max_drop = 0.02, min_overlap_at_10 = 0.95, most_trials = 150, shares = [0.3, 0.7] }
[compress.own.loose]
from = "control-ptq"
tables.control = { max_drop = 0.5, min_overlap_at_10 = 0.5, most_trials = 150, shares = [0.3, 0.7] }
"""


def placed(folder: Path, text: str = CONFIG) -> Place:
    write_log(folder)
    (folder / "edgepack.toml").write_text(text)
    return Place(load_config(folder / "edgepack.toml"), folder, Store(folder / "store"), silent)


def test_a_wider_tolerance_ends_in_a_smaller_file_and_either_search_holds_its_own(tmp_path):
    place = placed(tmp_path)
    split = logs.split_log(place)
    model = configured.model(place, logs.facts(split).items)
    trained = models.Trained(model, models.train(place, split, model, 1))
    recipes = known(place.config.compress.own)
    found = {n: controlled.search(place, split, trained, recipes[n]) for n in ("tight", "loose")}
    for name, one in found.items():
        assert one is not None
        control = recipes[name].tables.control
        assert one.outcome.within
        assert one.outcome.best.found.drop <= control.max_drop
        assert one.outcome.best.found.overlap_at_10 >= control.min_overlap_at_10
    assert found["loose"].outcome.best.unit_bytes < 0.8 * found["tight"].outcome.best.unit_bytes
    kept = compression.compress(place, split, trained, "loose")
    serving = steps.restore(model.build, kept.path, quantized=False)
    stored = levels.levels_of(serving.get_layer("item_embedding").get_weights()[0])
    assert stored is not None
    multiples = [band.multiple for band in found["loose"].tables.bands]
    said = ship._recipe(controlled.settled(place, split, trained, recipes["loose"]))
    assert [said[f"tables.bands.{i}.multiple"] for i in range(len(multiples))] == multiples
    assert len(np.unique(np.abs(stored))) <= round(127 / min(multiples)) + 1
    place.store.made.clear()
    compression.compress(place, split, trained, "loose")
    assert place.store.made == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('from = "control-ptp"', "there is no recipe 'control-ptp'"),
        ("tables.control.max_dorp = 0.1", "max_dorp is not a known key"),
        ('from = ["qat"]', "there is no recipe"),
        ("pruning.zero_share = 'half'", "Expected `float`, got `str`"),
        ("pruning.zero_share = 1.5", "Expected `float` < 1.0"),
        ("tables.table.levels = 200", "Expected `int` <= 127"),
        ("tables.control.most_trials = 0", "Expected `int` >= 1"),
        ("tables.control.shares = [0.9, 0.9]", "1 in sum at most"),
        ("tables.control.shares = [nan]", "Expected `float`"),
        ("tables.rank_share = -0.5", "Expected `float` >= 0"),
        ("tables.table.step = inf", "Expected `float` <= 100"),
        ("tables.control.bands = 3", "bands is not a known key"),
        ("tables.table.levels = { fine = 3 }", "Expected `int`, got `object`"),
        ('from = "control-ptq"\ntables.network.levels = 7', "control finds bands and the grids of layers"),
        ('from = "table-4bit-qat"\npruning.epochs = 1', "grids of tables keep neither zeros nor clusters"),
        ('from = "cluster16-qat"\ntables.table.levels = 7', "grids of tables keep neither zeros nor"),
        ('from = "cluster16-ptq"\npost_training.equalize = true', "equalize moves weights off their grid"),
        ('from = "qat"\npost_training.bias_correction = true', "quantization trains what post_training"),
        ('from = "prune80-qat"\npruning.epochs = 0', "set epochs to 1 or more"),
        ("tables = 3", "Expected `object"),
        (
            "tables = { by_worth = true, bands = [{ share = 1.0, multiple = 2 }] }",
            "both choose the rows' steps",
        ),
    ],
)
def test_an_own_recipe_with_a_fault_is_refused_in_one_sentence(tmp_path, line, said):
    place = placed(tmp_path, f"{CONFIG.partition('[compress.own')[0]}[compress.own.tight]\n{line}\n")
    with pytest.raises(ConfigError, match=said) as refused:
        planning.plan(tmp_path / "edgepack.toml", place.config)
    assert "compress.own.tight" in str(refused.value)


def test_an_own_recipe_differs_from_its_base_where_it_says_so():
    own = known({"longer": {"from": "guided-table-4bit-qat", "tables": {"epochs": 20}}})["longer"]
    base = RECIPES["guided-table-4bit-qat"]
    assert own.tables.epochs == 20
    assert own.tables.table == base.tables.table
    assert own.tables.distil and own.quantization == base.quantization
    with pytest.raises(ConfigError, match="there is a recipe of that name"):
        known({"qat": {}})


def test_a_report_says_what_was_chosen_and_what_it_costs_alone():
    unit = ControlledUnit(
        unit="item_embedding: 30 to 100 % of items",
        precision="8 x the finest step",
        deflate_bytes=1_200,
        most_deflate_bytes=4_000,
        drop=0.0123,
        overlap_at_10=0.875,
    )
    small = msgspec.structs.replace(
        unit, unit="positions", most_deflate_bytes=90, drop=None, overlap_at_10=None
    )
    one = Controlled(
        recipe="control-qat",
        users=60,
        trials=41,
        within=False,
        why="stopped after 41 trials, the most allowed",
        drop=0.02,
        overlap_at_10=0.7,
        units=(small, unit),
    )
    told = markdown.render(msgspec.structs.replace(sample_result(), controlled=(one,)))
    assert "41 trials on 60 validation users, before any training: stopped after 41 trials" in told
    assert (
        "the nearest to its tolerance, which does not hold: drop of NDCG@10 2.0 %, overlap@10 0.700" in told
    )
    lines = [line for line in told.splitlines() if "finest step" in line or "positions" in line]
    assert [line.split(" | ")[0].strip("| ").replace("\\", "") for line in lines] == [
        "item_embedding: 30 to 100 % of items",
        "positions",
    ]
    assert "1.2 %" in lines[0] and "0.875" in lines[0] and "not tried" in lines[1]


def test_on_test_users_nothing_is_chosen():
    nothing = np.empty(0, np.int32)
    nobody = Sequences(nothing, np.zeros(1, np.int64), nothing)
    whole = SimpleNamespace(valid=EvaluationSet(nobody, nobody))
    with pytest.raises(DataError, match="no user has events enough to be held out for validation"):
        logs.validated(whole, 10)
