"""Pruning and quantization-aware training: what is promised must stand in the weights and in the file."""

import msgspec
import numpy as np
import pytest
from edgepack.models import bert4rec, gru4rec, neumf, sasrec
from edgepack.models.graphs import Graphs

from edgepack.compress import prune, qat, steps
from edgepack.compress.recipes import RECIPES, Pruning, QuantizationAware
from edgepack.compress.weights import load_weights, save_weights
from edgepack.convert import flatbuffer, tflite
from edgepack.errors import ConvertError
from edgepack.keras2 import deterministic, keras, tf

ITEMS, LENGTH = 200, 12
HISTORIES = np.random.default_rng(0).integers(1, ITEMS + 1, (64, LENGTH)).astype(np.int32)
HISTORIES[:16, :5] = 0
RECIPE = msgspec.structs.replace(
    RECIPES["prune50-qat"], pruning=Pruning(epochs=4), quantization=QuantizationAware(epochs=2)
)


def build_sasrec():
    deterministic(3)
    return sasrec.build(ITEMS, LENGTH, width=16, ffn_width=16)


def build_neumf():
    deterministic(3)
    return neumf.build(ITEMS, LENGTH, width=8, mlp_in=8, mlp_out=8)


def build_gru4rec():
    deterministic(3)
    return gru4rec.build(ITEMS, LENGTH, width=16, units=12)


def finetune(graphs, *, epochs, learning_rate, keep_last, distil, table, work):
    """Teach every history its own last item, 12 steps an epoch: schedules run their course."""
    model, optimizer = graphs.training, keras.optimizers.Adam(learning_rate)
    targets = tf.constant(HISTORIES[:, -1])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            if graphs.pairwise:
                candidates = tf.constant(1 + (HISTORIES[:, -1:] - 1 + np.arange(4, dtype=np.int32)) % ITEMS)
                logits = model([HISTORIES, candidates], training=True)
                targets_ = tf.zeros(len(HISTORIES), tf.int32)
            else:
                hidden = model(HISTORIES, training=True)
                logits = tf.matmul(hidden[:, -1], table(), transpose_b=True) if table else hidden
                targets_ = targets
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets_, logits))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for _ in range(12 * epochs):
        step()


def compress(build, recipe, folder, tune=finetune):
    graphs = build()
    save_weights(graphs.training, folder / "float.npz")
    work = folder / recipe.name
    work.mkdir(exist_ok=True)
    steps.compress(
        build,
        folder / "float.npz",
        recipe,
        calibration=HISTORIES,
        steps_per_epoch=12,
        finetune=tune,
        work=work,
    )
    return work


@pytest.fixture(scope="module")
def sasrec_folder(tmp_path_factory):
    return compress(build_sasrec, RECIPE, tmp_path_factory.mktemp("sasrec"))


@pytest.fixture(scope="module")
def sasrec_int8(sasrec_folder):
    serving = steps.restore(build_sasrec, sasrec_folder, quantized=True)
    return serving, tflite.convert(serving, "tflite-int8", length=LENGTH, calibration=HISTORIES)


def test_half_of_every_kernel_and_table_is_zero_after_pruning_and_quantization_aware_training(sasrec_folder):
    plain = steps.restore(build_sasrec, sasrec_folder, quantized=False)
    shares = prune.zero_share(plain)
    assert {"item_embedding/embeddings", "scores/kernel", "block1_ffn_out/kernel"} <= set(shares)
    assert min(shares.values()) >= 0.5


def test_the_shipped_int8_file_holds_those_zeros(sasrec_int8):
    shares = flatbuffer.zero_share(sasrec_int8[1])
    assert "item_embedding/table" in shares
    assert len(shares) == 9
    assert min(shares.values()) >= 0.5


# Where a product takes whole counts, the layers that make or read them count in steps of those.
COUNTING = {f"block{block}_query/weights" for block in (0, 1)}


def test_the_trained_scales_stand_in_the_shipped_file(sasrec_int8):
    serving, data = sasrec_int8
    trained = {
        name.replace("/kernel", "/weights").replace("/embeddings", "/table"): scale
        for name, scale in qat.weight_scales(serving).items()
        # `positions` is added, not multiplied with; the tied kernel is the table.
        if name not in ("positions/positions", "scores/kernel")
    }
    found = flatbuffer.scales(data)
    assert set(found) == set(trained)
    for name in set(trained) - COUNTING:
        np.testing.assert_allclose(found[name], [trained[name]], rtol=1e-6)


def test_the_trained_weights_stand_in_the_shipped_file_as_they_were_rounded(sasrec_int8):
    serving, data = sasrec_int8
    stored = {constant.name: constant.values for constant in flatbuffer.constants(data)}
    layers = {layer.name: layer for layer in serving.layers}
    scales = qat.weight_scales(serving)
    for name in COUNTING:
        layer = name.removesuffix("/weights")
        kernel = next(w.numpy() for w in layers[f"quant_{layer}"].weights if w.name.endswith("kernel:0"))
        rounded = np.round(kernel / scales[f"{layer}/kernel"])
        assert np.abs(stored[name].T - rounded).max() <= 1
        assert np.mean(rounded == stored[name].T) > 0.99


def test_the_tied_table_is_stored_once(sasrec_int8):
    data = sasrec_int8[1]
    assert flatbuffer.tables(data) == {"item_embedding/table": (ITEMS + 1) * 16}
    whole_tables = [c for c in flatbuffer.constants(data) if c.values.shape == (ITEMS + 1, 16)]
    assert len(whole_tables) == 1


def test_no_float_operator_is_left_in_the_trained_int8_file(sasrec_int8):
    assert flatbuffer.is_all_integer(sasrec_int8[1])


def test_the_same_weights_convert_to_the_same_int8_bytes(sasrec_folder, sasrec_int8):
    again = steps.restore(build_sasrec, sasrec_folder, quantized=True)
    assert tflite.convert(again, "tflite-int8", length=LENGTH, calibration=HISTORIES) == sasrec_int8[1]


def test_a_restored_model_gives_the_scores_of_the_trained_one(tmp_path):
    seen = []

    def tuned(graphs, **settings):
        finetune(graphs, **settings)
        seen.append(graphs)

    folder = compress(build_neumf, RECIPES["qat"], tmp_path, tuned)
    restored = steps.restore(build_neumf, folder, quantized=True)
    np.testing.assert_array_equal(
        seen[-1].serving(HISTORIES, training=False), restored(HISTORIES, training=False)
    )


def test_zeros_survive_in_a_dense_layer_that_feeds_a_concatenate(tmp_path):
    folder = compress(build_neumf, RECIPE, tmp_path)
    shares = prune.zero_share(steps.restore(build_neumf, folder, quantized=False))
    assert shares["mlp_second/kernel"] >= 0.5
    assert min(shares.values()) >= 0.5


def test_a_recurrent_kernel_is_pruned_rounded_and_stored_once(tmp_path):
    folder = compress(build_gru4rec, RECIPE, tmp_path)
    assert prune.zero_share(steps.restore(build_gru4rec, folder, quantized=False))["recurrence/kernel"] >= 0.5
    serving = steps.restore(build_gru4rec, folder, quantized=True)
    data = tflite.convert(serving, "tflite-int8", length=LENGTH, calibration=HISTORIES)
    assert flatbuffer.is_all_integer(data)
    kernels = [c for c in flatbuffer.constants(data) if c.values.shape == (36, 12)]
    assert len(kernels) == 1
    assert np.mean(kernels[0].values == 0) >= 0.5
    trained = qat.weight_scales(serving)["recurrence/kernel"]
    np.testing.assert_allclose(flatbuffer.scales(data)["recurrence/weights"], [trained], rtol=1e-6)


def test_the_state_of_a_gru_and_the_vector_of_the_mask_are_rounded_in_training():
    graphs = build_gru4rec()
    wrapped = qat.wrap(graphs.training, keep_zeros=False, float_outputs=False)
    recurrence = wrapped.get_layer("quant_recurrence").layer
    assert recurrence.int8_state
    fed = keras.Model(graphs.training.inputs, graphs.training.get_layer("recurrence").input)
    alone = type(recurrence).from_config(recurrence.get_config())
    steps_of_128 = alone(fed(tf.constant(HISTORIES))).numpy() * 128
    np.testing.assert_array_equal(steps_of_128, np.round(steps_of_128))
    both_ways = bert4rec.build(ITEMS, LENGTH, width=16, ffn_width=16)
    assert "mask/vector" in qat.weight_scales(
        qat.wrap(both_ways.serving, keep_zeros=False, float_outputs=True)
    )


def test_a_second_attempt_does_not_prune_again(tmp_path):
    done = []

    def killed_while_quantizing(graphs, **settings):
        done.append(settings["work"].name)
        if done[-1] == "qat" and len(done) == 2:
            raise KeyboardInterrupt
        finetune(graphs, **{**settings, "epochs": 1})

    recipe = msgspec.structs.replace(RECIPE, pruning=Pruning(schedule="constant"))
    with pytest.raises(KeyboardInterrupt):
        compress(build_neumf, recipe, tmp_path, killed_while_quantizing)
    folder = compress(build_neumf, recipe, tmp_path, killed_while_quantizing)
    assert done == ["prune", "qat", "qat"]
    assert sorted(path.name for path in folder.iterdir()) == ["recipe.json", "serving_weights.npz"]


def test_two_of_four_consecutive_inputs_are_zero_under_2_4():
    graphs = build_sasrec()
    pruned = prune.prune(graphs.training, Pruning(schedule="2:4"), steps_per_epoch=2)
    tuned = Graphs(pruned, graphs.serving, graphs.table, graphs.tied)
    rows = pruned.get_layer("prune_low_magnitude_item_embedding").layer
    live = {"distil": False, "table": lambda: rows.embeddings}
    finetune(tuned, epochs=1, learning_rate=1e-3, keep_last=True, **live, work=None)
    prune.strip(pruned, graphs.training)
    kernel = graphs.training.get_layer("block0_ffn_in").get_weights()[0]
    zeros_in_four = (kernel.T.reshape(-1, 4) == 0).sum(axis=1)
    assert (zeros_in_four == 2).all()
    assert prune.zero_share(graphs.training)["item_embedding/embeddings"] >= 0.49


def test_ranges_start_from_what_the_float_model_gives():
    graphs = build_sasrec()
    wrapped = qat.wrap(graphs.serving, keep_zeros=False, float_outputs=True)
    qat.calibrate(wrapped, graphs.serving, HISTORIES)
    seen = keras.Model(graphs.serving.inputs, graphs.serving.get_layer("block0_ffn_add").output)(HISTORIES)
    ranges = wrapped.get_layer("quant_block0_ffn_add")._output_quantizer_vars
    assert ranges["min_var"].numpy() == pytest.approx(float(tf.reduce_min(seen)), rel=1e-5)
    assert ranges["max_var"].numpy() == pytest.approx(float(tf.reduce_max(seen)), rel=1e-5)


def test_scores_stay_float_and_hidden_is_rounded():
    graphs = build_sasrec()
    serving = qat.wrap(graphs.serving, keep_zeros=False, float_outputs=True)
    training = qat.wrap(graphs.training, keep_zeros=False, float_outputs=False)
    assert serving.get_layer("quant_scores")._output_quantizers == []
    assert len(training.get_layer("quant_final_norm")._output_quantizers) == 1


@pytest.mark.parametrize(
    ("layer", "advice"),
    [
        (keras.layers.GRU(4, name="memory"), "get_quantizable_weights"),
        (keras.layers.Lambda(lambda x: x, name="trick"), "layer class of its own"),
        (keras.layers.BatchNormalization(name="norm"), "LayerNormalization"),
    ],
)
def test_an_unsupported_layer_is_named_with_what_to_do(layer, advice):
    ids = keras.Input((LENGTH,), dtype="int32")
    model = keras.Model(ids, layer(keras.layers.Embedding(9, 4)(ids)))
    with pytest.raises(ConvertError) as raised:
        qat.wrap(model, keep_zeros=False, float_outputs=True)
    assert layer.name in str(raised.value)
    assert type(layer).__name__ in str(raised.value)
    assert advice in str(raised.value)


def test_a_subclassed_model_is_refused_by_training_and_passes_post_training():
    class Own(keras.Model):
        def call(self, x):
            return x

    model = Own(name="mine")
    with pytest.raises(ConvertError, match="mine"):
        qat.wrap(model, keep_zeros=False, float_outputs=True)
    assert qat.wrap_tables(model, ()) is model


def test_a_users_layer_takes_part_by_naming_its_weights():
    @keras.saving.register_keras_serializable("tests")
    class Scale(keras.layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=(shape[-1],), initializer="ones")

        def call(self, x):
            return x * self.factor

        def get_quantizable_weights(self):
            return ["factor"]

    ids = keras.Input((LENGTH,), dtype="int32")
    x = Scale(name="scale")(keras.layers.Embedding(9, 4, name="rows")(ids))
    model = keras.Model(ids, keras.layers.Dense(3, name="last")(keras.layers.Flatten()(x)))
    wrapped = qat.wrap(model, keep_zeros=False, float_outputs=True)
    assert set(qat.weight_scales(wrapped)) == {"rows/embeddings", "scale/factor", "last/kernel"}


def test_equal_weights_make_equal_files(tmp_path):
    for name in ("a.npz", "b.npz"):
        save_weights(build_sasrec().training, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_weight_that_is_named_as_a_wrappers_bookkeeping_is_kept(tmp_path):
    class Own(keras.layers.Layer):
        def build(self, shape):
            self.mask = self.add_weight(name="mask", shape=(3,), initializer="ones")
            self.threshold = self.add_weight(name="threshold", shape=(), trainable=False)

        def call(self, x):
            return x * self.mask + self.threshold

    x = keras.Input((3,))
    model = keras.Model(x, Own(name="own")(x))
    model.get_layer("own").set_weights([np.array([2, 3, 4]), np.array(5)])
    save_weights(model, tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz") as stored:
        assert {name: stored[name].tolist() for name in stored} == {"own/mask": [2, 3, 4], "own/threshold": 5}


def test_weights_of_another_size_are_refused(tmp_path):
    save_weights(build_sasrec().training, tmp_path / "w.npz")
    wider = sasrec.build(ITEMS, LENGTH, width=24, ffn_width=16)
    with pytest.raises(ConvertError, match="weight 'item_embedding/embeddings'"):
        load_weights(wider.training, tmp_path / "w.npz")


def test_weights_of_layers_within_layers_are_all_kept(tmp_path):
    def build():
        x = keras.Input((LENGTH, 8))
        return keras.Model(x, keras.layers.MultiHeadAttention(2, 4, name="mha")(x, x))

    first, second = build(), build()
    save_weights(first, tmp_path / "w.npz")
    load_weights(second, tmp_path / "w.npz")
    for mine, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
