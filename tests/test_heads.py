"""Structured pruning of attention: whole heads disappear, those of no worth first, from the file too."""

import numpy as np
import pytest
from edgepack.models import bert4rec, folding, sasrec
from edgepack.models.graphs import AttentionCore, Graphs, TakeLast

from edgepack.compress import heads, steps, thin
from edgepack.compress.recipes import RECIPES, Recipe, Thinning, known
from edgepack.convert import flatbuffer, onnx, tflite
from edgepack.errors import ConfigError, ConvertError
from edgepack.keras2 import deterministic, keras, tf
from edgepack.runtimes.engines import Engine, scores
from tests.test_compress import HISTORIES as COMPRESSED
from tests.test_compress import LENGTH as COMPRESSED_LENGTH
from tests.test_compress import build_neumf, compress, finetune
from tests.test_folding import HISTORIES, ITEMS, LENGTH, WIDTH, assert_equal, kinds, trained

HALF = Thinning(share=0.0, head_share=0.5)
HEAD = WIDTH // 4  # of four
GONE = np.repeat([False, True, True, False], HEAD)
SHARED_GONE = np.repeat([False, True, True, False], WIDTH)


def four_heads(**hyper):
    """A folded SASRec: block 0 has queries, keys and values a head, block 1 keys that all heads share."""
    return folding.shipped(trained(heads=4, **hyper))


def without(graphs, name, gone, shift=0.0):
    """Let the rows `gone` of Dense layer `name` give nothing, in both graphs."""
    for view in graphs[:2]:
        kernel, *bias = view.get_layer(name).get_weights()
        view.get_layer(name).set_weights([kernel * ~gone[:, None], *(values + shift for values in bias)])


def shapes(model):
    return {weight.name: tuple(weight.shape) for weight in model.weights}


def own_model(constant=False):
    """A user's model: biases everywhere, dropout behind the core, everything pooled."""
    deterministic(5)
    ids = keras.Input((LENGTH,), dtype="int32", name="items")
    x = keras.layers.Embedding(ITEMS + 1, 12, name="rows")(ids)
    parts = [keras.layers.Dense(8, name=name)(x) for name in ("q", "k", "v")]
    core = AttentionCore(2, "all", name="core")([*parts, ids])
    x = keras.layers.Dense(12, name="o")(keras.layers.Dropout(0.1)(core))
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(ids, keras.layers.Dense(ITEMS + 1, name="out")(x), name="own")
    if constant:
        kernel, bias = model.get_layer("v").get_weights()
        kernel[:, :4], bias[:4] = 0, 3.0
        model.get_layer("v").set_weights([kernel, bias])
    return Graphs(model, model, "", None)


def test_heads_that_nobody_hears_go_first_and_no_score_changes():
    graphs = four_heads()
    without(graphs, "block0_output", GONE)
    without(graphs, "block1_output", SHARED_GONE)
    thinned = thin.thin(graphs, HALF, HISTORIES)
    for before, after in zip(graphs[:2], thinned[:2], strict=True):
        assert_equal(after(HISTORIES).numpy(), before(HISTORIES).numpy())
        assert [after.get_layer(f"block{index}_attention").heads for index in (0, 1)] == [2, 2]
        for part in ("query", "key", "value"):
            kept = before.get_layer(f"block0_{part}").kernel.numpy()[:, ~GONE]
            np.testing.assert_array_equal(after.get_layer(f"block0_{part}").kernel.numpy(), kept)
        kept = before.get_layer("block1_query").bias.numpy()[~SHARED_GONE]
        np.testing.assert_array_equal(after.get_layer("block1_query").bias.numpy(), kept)
    assert thinned.serving.get_layer("block0_output").kernel.shape == (WIDTH // 2, WIDTH)
    assert thinned.serving.get_layer("block1_output").kernel.shape == (2 * WIDTH, WIDTH)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_cut_model_scores_as_the_whole_one_whose_lost_heads_give_their_mean(share):
    graphs, settings = four_heads(), Thinning(share=0.0, head_share=share)
    thinned = thin.thin(graphs, settings, HISTORIES)
    means = {}
    for attention in heads.attentions(graphs.serving):
        attended = keras.Model(graphs.serving.inputs, attention.core.output)(HISTORIES).numpy()
        heard = attended[HISTORIES != 0] if attended.shape[1] == LENGTH else attended[:, 0]
        means[attention.core.name] = heard.mean(axis=0)
    for index in (0, 1):
        whole, cut = (g.serving.get_layer(f"block{index}_query").kernel.numpy() for g in (graphs, thinned))
        gone = ~np.isin(whole[0], cut[0])
        assert gone.sum() == share * whole.shape[1]
        kernel = graphs.serving.get_layer(f"block{index}_output").kernel.numpy()
        mean = means[f"block{index}_attention"]
        without(graphs, f"block{index}_output", gone, mean[gone] @ kernel[gone])
    for before, after in zip(graphs[:2], thinned[:2], strict=True):
        assert_equal(after(HISTORIES).numpy(), before(HISTORIES).numpy())


def test_the_head_goes_whose_replacement_by_its_mean_changes_the_layer_least():
    graphs = four_heads(blocks=1)
    attended = keras.Model(graphs.serving.inputs, graphs.serving.get_layer("block0_attention").output)
    values, output = attended(HISTORIES).numpy()[:, 0], graphs.serving.get_layer("block0_output")
    whole = output(values).numpy()
    changes = []
    for head in range(4):
        held = values.copy()
        own = slice(head * WIDTH, (head + 1) * WIDTH)
        held[:, own] = values[:, own].mean(axis=0)
        changes.append(np.square(output(held).numpy() - whole).sum(axis=1).mean())
    thinned = thin.thin(graphs, Thinning(share=0.0, head_share=0.25), HISTORIES)
    cut, biases = (g.serving.get_layer("block0_query").bias.numpy() for g in (thinned, graphs))
    stays = np.delete(biases.reshape(4, -1), np.argmin(changes), axis=0)
    np.testing.assert_array_equal(cut, stays.ravel())


def test_what_padding_was_told_does_not_count():
    graphs = four_heads()
    mostly_padding = np.concatenate([np.zeros((32, 3 * LENGTH), np.int32), HISTORIES], axis=1)
    attention = heads.attentions(graphs.serving)[0]
    attended = np.random.default_rng(0).normal(size=(32, 4 * LENGTH, WIDTH)).astype(np.float32)
    found = heads.kept(attention, attended, mostly_padding, share=0.5)
    alone = heads.kept(attention, attended[:, 3 * LENGTH :], HISTORIES, share=0.5)
    np.testing.assert_array_equal(found.channels, alone.channels)
    np.testing.assert_allclose(found.means, alone.means, atol=1e-6)


def test_a_users_model_loses_the_head_that_always_gives_the_same():
    graphs = own_model(constant=True)
    before, values = graphs.serving(HISTORIES).numpy(), graphs.serving.get_layer("v").get_weights()
    thinned = thin.thin(graphs, HALF, HISTORIES)
    assert thinned.training is thinned.serving
    np.testing.assert_array_equal(thinned.serving.get_layer("v").kernel.numpy(), values[0][:, 4:])
    assert_equal(thinned.serving(HISTORIES).numpy(), before)


def test_bert4rec_keeps_the_width_of_a_head_and_loses_the_silent_one():
    deterministic(3)
    graphs = bert4rec.build(ITEMS, LENGTH, width=WIDTH, ffn_width=12, heads=2)
    for index in (0, 1):
        without(graphs, f"block{index}_output", np.arange(WIDTH) < WIDTH // 2)
    thinned = thin.thin(graphs, HALF, HISTORIES)
    assert thinned.serving.get_layer("block1_output").kernel.shape == (WIDTH // 2, WIDTH)
    for before, after in zip(graphs[:2], thinned[:2], strict=True):
        assert_equal(after(HISTORIES).numpy(), before(HISTORIES).numpy())


def test_graphs_whose_cores_have_names_of_their_own_are_cut_alike():
    graphs = four_heads()

    def renamed(layer):
        name = f"other_{layer.name}" if isinstance(layer, AttentionCore) else layer.name
        return layer.__class__.from_config(layer.get_config() | {"name": name})

    training = keras.models.clone_model(graphs.training, clone_function=renamed)
    training.set_weights(graphs.training.get_weights())
    wanted = thin.thin(graphs, HALF, HISTORIES).training(HISTORIES).numpy()
    found = thin.thin(graphs._replace(training=training), HALF, HISTORIES).training
    np.testing.assert_array_equal(found(HISTORIES).numpy(), wanted)


@pytest.mark.parametrize("settings", [HALF, Thinning(head_share=0.9), Thinning(share=0.0, head_share=0.01)])
def test_shapes_follow_from_the_shares_alone(settings):
    graphs = four_heads(ffn_width=16)
    thinned, reshaped = thin.thin(graphs, settings, HISTORIES), thin.reshaped(graphs, settings)
    for made, empty in zip(thinned[:2], reshaped[:2], strict=True):
        assert shapes(made) == shapes(empty)
    left = {0.5: 2, 0.9: 1, 0.01: 3}[settings.head_share]
    assert reshaped.serving.get_layer("block0_key").kernel.shape == (WIDTH, left * HEAD)
    assert reshaped.serving.get_layer("block0_ffn_in").units == (8 if settings.share else 16)


def test_a_last_block_cut_to_one_head_is_converted_as_one_that_had_but_one():
    cut = thin.thin(folding.shipped(trained(heads=2, blocks=1)), HALF, HISTORIES)
    assert kinds(cut) == kinds(folding.shipped(trained(heads=1, blocks=1)))


def build_four():
    deterministic(3)
    return sasrec.build(200, COMPRESSED_LENGTH, width=16, ffn_width=16, heads=4)


def build_both_ways():
    deterministic(3)
    return bert4rec.build(200, COMPRESSED_LENGTH, width=16, ffn_width=16, heads=4)


def as_tflite(model):
    return tflite.convert(model, "tflite-float32", length=COMPRESSED_LENGTH, calibration=COMPRESSED)


def as_onnx(model):
    return onnx.export(model, length=COMPRESSED_LENGTH)


@pytest.mark.parametrize(
    ("build", "convert", "engine"),
    [(build_four, as_tflite, "litert"), (build_both_ways, as_onnx, "onnxruntime")],
)
def test_a_build_is_restored_to_the_bit_and_its_file_is_smaller_and_agrees(build, convert, engine, tmp_path):
    tuned = []

    def watched(graphs, **settings):
        finetune(graphs, **settings | {"epochs": 1})
        tuned.append(graphs)

    folder = compress(build, RECIPES["heads50-ptq"], tmp_path, watched)
    plain = steps.restore(build, folder, quantized=False)
    assert plain.get_layer("block0_query").kernel.shape == (16, 8)
    trained = tuned[0].training.get_layer("block0_output").get_weights()
    for wanted, found in zip(trained, plain.get_layer("block0_output").get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    file = tmp_path / "model"
    file.write_bytes(convert(plain))
    assert file.stat().st_size < len(convert(folding.shipped(build()).serving))
    assert_equal(scores(Engine(engine), file, COMPRESSED), plain(COMPRESSED).numpy())


def test_the_int8_file_with_trained_ranges_holds_half_of_each_attention(tmp_path):
    folder = compress(build_four, RECIPES["heads50-qat"], tmp_path, lambda graphs, **settings: None)
    serving = steps.restore(build_four, folder, quantized=True)
    data = tflite.convert(serving, "tflite-int8", length=COMPRESSED_LENGTH, calibration=COMPRESSED)
    stored = {one.name: one.values.shape for one in flatbuffer.constants(data)}
    assert flatbuffer.is_all_integer(data)
    assert [stored[f"block0_{part}/weights"] for part in ("query", "key", "value")] == [(8, 16)] * 3
    assert stored["block0_output/weights"] == (16, 8)
    assert stored["block1_query/weights"] == (32, 16)
    assert stored["block1_output/weights"] == (16, 32)


def test_a_second_attempt_cuts_nothing_again(tmp_path):
    recipe = Recipe(
        name="heads",
        thinning=Thinning(share=0.0, head_share=0.5, epochs=0),
        quantization=RECIPES["qat"].quantization,
    )
    seen = []

    def build():
        deterministic(3)
        return sasrec.build(200, COMPRESSED_LENGTH, width=8, ffn_width=0, blocks=1, heads=2)

    def killed_while_quantizing(graphs, **settings):
        seen.append(settings["work"].name)
        if seen.count("qat") < 2 and seen[-1] == "qat":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(build, recipe, tmp_path, killed_while_quantizing)
    folder = compress(build, recipe, tmp_path, killed_while_quantizing)
    assert seen == ["thin", "qat", "qat"]
    assert not (folder / "thinned.npz").exists()
    assert steps.restore(build, folder, quantized=False).get_layer("block0_attention").heads == 1


def test_an_attention_that_others_read_or_feed_is_left_as_it_is():
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(ITEMS + 1, 8)(ids)
    q, k, v = (keras.layers.Dense(8, name=name)(x) for name in ("q", "k", "v"))
    made = {
        "free": ([q, k, v], lambda core: keras.layers.Dense(4)(core)),
        "read by more": ([q, k, v], lambda core: keras.layers.Add()([keras.layers.Dense(8)(core), core])),
        "not dense": ([q, x, v], lambda core: keras.layers.Dense(4)(core)),
        "shared values": (
            [q, k, keras.layers.Dense(4)(x)],
            lambda core: keras.layers.Dense(4)(TakeLast()(core)),
        ),
        "values read twice": (
            [q, k, v],
            lambda core: keras.layers.Concatenate()([keras.layers.Dense(4)(core), keras.layers.Dense(4)(v)]),
        ),
    }
    found = {}
    for name, (parts, behind) in made.items():
        model = keras.Model(ids, behind(AttentionCore(2, "all")([*parts, ids])))
        found[name] = [[layer.name for layer in one.producers] for one in heads.attentions(model)]
    assert found == {
        "free": [["q", "k", "v"]],
        "read by more": [],
        "not dense": [],
        "shared values": [["q", "k"]],
        "values read twice": [],
    }


@pytest.mark.parametrize("build", [build_neumf, lambda: folding.shipped(trained())])
def test_a_model_without_several_heads_is_refused(build):
    with pytest.raises(ConvertError, match=r"it has no attention heads .* Use a recipe without `heads`\.$"):
        thin.thin(build(), HALF, HISTORIES)


def test_units_may_go_where_heads_cannot_and_neither_is_refused_in_one_sentence():
    both = Thinning(head_share=0.5)
    assert thin.reshaped(trained(ffn_width=16), both).serving.get_layer("block0_ffn_in").units == 8
    with pytest.raises(ConvertError, match="no hidden units and no attention heads that could be taken out"):
        thin.thin(build_neumf(), both, HISTORIES)


def test_a_recipe_that_takes_nothing_out_is_refused():
    with pytest.raises(ConfigError, match="share and head_share are both 0"):
        known({"own": {"from": "thin50-qat", "thinning": {"share": 0.0}}})
    own = known({"own": {"from": "heads50-qat", "thinning": {"head_share": 0.75}}})["own"]
    assert own.thinning == Thinning(share=0.0, head_share=0.75)


def test_units_of_values_are_the_heads_and_stay_when_hidden_units_go():
    ids = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(ITEMS + 1, 8)(ids)
    q, k = (keras.layers.Dense(16)(x) for _ in range(2))
    v = keras.layers.Dense(16, activation="relu", name="v")(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden")(AttentionCore(2, "all")([q, k, v, ids]))
    model = keras.Model(ids, keras.layers.Dense(ITEMS + 1)(x))
    thinned = thin.thin(Graphs(model, model, "", None), Thinning(), HISTORIES).serving
    assert (thinned.get_layer("v").units, thinned.get_layer("hidden").units) == (16, 8)
    assert np.isfinite(tf.reduce_sum(thinned(HISTORIES)).numpy())
