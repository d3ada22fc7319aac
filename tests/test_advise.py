"""`edgepack advise` tells a model's bytes apart, says what recipes should bring, and from where it knows."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from edgepack import advising
from edgepack.cli import cli
from edgepack.compress.recipes import RECIPES
from edgepack.keras2 import keras
from tests.test_structure import ROOT

ITEMS, WIDTH = 300, 16


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    ids = keras.Input((6,), dtype="int32", name="history")
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(ITEMS + 1, WIDTH, name="rows")(ids))
    made = keras.Model(ids, keras.layers.Dense(ITEMS + 1, use_bias=False, name="scores")(x))
    made.get_layer("scores").set_weights([np.transpose(made.get_layer("rows").get_weights()[0])])
    path = tmp_path_factory.mktemp("advise") / "own.keras"
    made.save(path)
    return path


def test_the_bytes_are_told_apart_and_a_table_in_two_places_is_found(model):
    found = advising.advise(model, ("android-arm64-low",))
    assert found.float32_bytes == 4 * (ITEMS + 1) * WIDTH
    assert found.stored_bytes == 2 * found.float32_bytes
    assert [table[1:] for table in found.tables] == [(ITEMS + 1, WIDTH, 2)]
    assert any("100% of the weights" in finding for finding in found.findings)
    assert any("stored 2 times" in finding for finding in found.findings)


def test_expected_bytes_are_those_of_the_measured_bits(model):
    for one in advising.advise(model, ("android-arm64-low",)).expected:
        bits = (ITEMS + 1) * WIDTH * one.technique.table_bits
        assert one.model_deflate_bytes == round(bits / 8)
        assert one.ratio == pytest.approx(32 / one.technique.table_bits)


def test_a_target_gets_the_smallest_recipe_that_kept_the_ranking(model):
    (fit,) = advising.advise(model, ("android-arm64-low",)).targets
    allowed = [one for one in advising.TECHNIQUES if one.kept >= 0.99 and one.overlap_at_10 >= 0.8]
    assert fit.recipe == min(allowed, key=lambda one: one.table_bits).recipe


def test_a_limit_below_every_recipe_asks_for_a_narrower_model(model, monkeypatch):
    import msgspec

    (profile,) = advising.named_profiles(("android-arm64-low",), None)
    small = msgspec.structs.replace(profile.budget, model_bytes=100)
    tight = msgspec.structs.replace(profile, budget=small)
    monkeypatch.setattr(advising, "named_profiles", lambda patterns, folder: [tight])
    (fit,) = advising.advise(model, ("android-arm64-low",)).targets
    assert fit.recipe is None
    assert "teach a narrower model" in fit.why


def test_a_models_limit_is_held_against_its_file_and_not_against_a_download():
    (profile,) = advising.named_profiles(("android-arm64-low",), None)
    weights = profile.budget.model_bytes
    expected = tuple(advising._expected(technique, weights, 0) for technique in advising.TECHNIQUES)
    assert advising._fit(profile, weights, expected).recipe is not None
    assert "narrower model" in advising._fit(profile, weights + 1, expected).why


def test_every_figure_stands_in_the_result_that_is_named():
    for technique in advising.TECHNIQUES:
        assert technique.recipe in RECIPES
        path = technique.source.partition(": ")[2]
        text = (ROOT / path).read_text()
        if "tables" in path:
            bits = {"table-4bit-qat": "4 bits", "table-3bit-qat": "3 bits"}[technique.recipe]
            row = re.search(rf"^\| grid, {bits} \|.*$", text, re.M)
            assert row is not None
            cells = [cell.strip() for cell in row[0].strip("|").split("|")]
            assert cells[2] == f"{technique.table_bits}"
            assert cells[4] == f"{technique.kept:.1%}"
        else:
            row = re.search(rf"^\| {technique.recipe} \(tflite-int8-f32scores\) \|.*$", text, re.M)
            float_row = re.search(r"^\| float \(tflite-float32\) \|.*$", text, re.M)
            assert row is not None and float_row is not None
            cells, before = ([c.strip() for c in r[0].strip("|").split("|")] for r in (row, float_row))
            ndcg, float_ndcg = (float(c[1].split()[0]) for c in (cells, before))
            assert technique.kept == pytest.approx(ndcg / float_ndcg, abs=0.0006)
        assert f"{technique.overlap_at_10:.3f}" in cells


def test_it_prints_json_and_loads_no_tensorflow(model):
    printed = CliRunner().invoke(cli, ["advise", str(model), "-t", "web-*", "--json"], standalone_mode=False)
    assert {fit["target"] for fit in json.loads(printed.output)["targets"]} == {
        "web-litert-mobile",
        "web-wasm-desktop",
        "web-wasm-mobile",
    }
    code = (
        "import sys; from pathlib import Path; from edgepack import advising;"
        f"advising.advise(Path({str(model)!r}), ());"
        "assert not [name for name in sys.modules if name.startswith(('tensorflow', 'tf_keras'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_file_without_weights_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "own.py").write_text("")
    from edgepack.errors import ConvertError

    with pytest.raises(ConvertError, match=r"own\.py.*Save the model as \.keras"):
        advising.advise(tmp_path / "own.py", ())


def test_a_named_set_decodes_into_recipes_that_exist_and_nothing_is_tried_twice(tmp_path):
    from edgepack.compress.recipes import SETS, decoded
    from edgepack.config import load_config
    from edgepack.planning import plan, render_plan

    assert set(SETS) == {"lossless", "fast", "balanced", "smallest"}
    assert {name for names in SETS.values() for name in names} <= set(RECIPES)
    assert decoded(("balanced", "qat", "fast")) == ("ptq", "qat")
    path = tmp_path / "edgepack.toml"
    path.write_text('[data.shop]\nitems = 500\n[compress]\nrecipes = ["balanced"]\n')
    planned = plan(path, load_config(path), ("android-arm64-low",))
    assert {recipe for recipe, _ in planned.candidates["android-arm64-low"]} == {"float", "ptq", "qat"}
    assert "recipes float, ptq, qat" in render_plan(planned, as_json=False)
