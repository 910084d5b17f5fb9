"""DSH-GANs as a Hasher: its stages and variants, what it keeps, and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tfhash import methods
from tfhash.data import splits
from tfhash.data.learning import LearningData
from tfhash.data.sources import ImageSet
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.methods.dsh_gan import DSHGAN, DSHGANConfig
from tfhash.methods.dsh_gan.stage import (
    ADVERSARY_TERMS,
    CLASS_TERMS,
    GAN_TERMS,
    HASH_TERMS,
    UNLABELLED_TERMS,
)
from tfhash.networks import backbones
from tfhash.training.run import Run

pytestmark = pytest.mark.usefixtures("eagerly")

IMAGES, CLASSES = 120, 4
SETTINGS = DeepSettings(steps=2, batch_size=12, unlabelled_batch_size=6, checkpoint_every=2)
CONFIG = DSHGANConfig(
    gan_steps=2, gan_size=16, gan_width=4, noise_size=4, hidden_units=6, hash_learning_rate=0.05
)


def make_set(labels):
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 16, 16, 3), np.uint8)
    names = tuple("abcd")
    return ImageSet("noise", images, labels, names, tuple(map(str, range(IMAGES))))


@pytest.fixture(scope="module")
def one_label():
    """Images of noise, 30 a class: 5 queries and 10 labelled ones, 2 of these for validation."""
    image_set = make_set(np.eye(CLASSES, dtype=np.uint8)[np.arange(IMAGES) % CLASSES])
    return image_set, split(image_set)


def split(image_set, **options):
    numbers = {"queries_per_class": 5, "labelled_per_class": 10, "validation_fraction": 0.2}
    return splits.make(image_set, seed=0, **{**numbers, **options})


@pytest.fixture(scope="module")
def several_labels():
    """Random label sets: a class with a chance of 30 %, and one class at least."""
    rng = np.random.default_rng(1)
    labels = (rng.random((IMAGES, CLASSES)) < 0.3).astype(np.uint8)
    labels[np.arange(IMAGES), rng.integers(0, CLASSES, IMAGES)] = 1
    image_set = make_set(labels)
    return image_set, split(image_set)


def make(config=CONFIG, settings=SETTINGS, bits=12, seed=0, image_size=16):
    return DSHGAN.of(config, settings, code_length=bits, image_size=image_size, seed=seed)


def changed(**options):
    return dataclasses.replace(CONFIG, **options)


def test_it_is_the_method_of_its_module():
    assert methods.get("dsh_gan") is DSHGAN


@dataclass
class Learned:
    """A hasher that has learned: its facts, what it printed, and its GAN as stage 1 left it.

    directory: of its run.
    """

    hasher: DSHGAN
    image_set: ImageSet
    splits: RetrievalSplits
    facts: dict
    printed: str
    after_stage_1: dict
    directory: Path


def learn(hasher, image_set, parts, directory):
    after_stage_1 = {}
    train_hash = hasher.train_hash

    def remember(*arguments):
        for name in {"generator", "discriminator"} & set(hasher.networks):
            after_stage_1[name] = hasher.networks[name].get_weights()
        return train_hash(*arguments)

    hasher.train_hash = remember
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        facts = hasher.learn(image_set, parts, Run(directory))
    assert keras.config.dtype_policy().name == "float32"  # also after mixed precision
    return Learned(hasher, image_set, parts, facts, printed.getvalue(), after_stage_1, directory)


@pytest.fixture(scope="module")
def learned_one(one_label, tmp_path_factory):
    """The method as the paper has it."""
    return learn(make(), *one_label, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def learned_several(several_labels, tmp_path_factory):
    """Several labels, a part of the images real, mixed precision, flips."""
    settings = dataclasses.replace(SETTINGS, mixed_bfloat16=True, flip=True)
    hasher = make(changed(real_fraction=0.4), settings)
    return learn(hasher, *several_labels, tmp_path_factory.mktemp("several"))


either = pytest.mark.parametrize("name", ["learned_one", "learned_several"])


@either
def test_it_learns_encodes_saves_and_loads(name, tmp_path, request):
    learned = request.getfixturevalue(name)
    facts, images = learned.facts, learned.image_set.images
    assert json.loads(json.dumps(facts)) == facts
    on_synthetic = {"gauge/class_synthetic"} if name == "learned_one" else set()
    on_real = {"gauge/class_real"} if name == "learned_one" else set()
    assert set(facts["stage1_gauges"]) == on_synthetic | on_real
    assert set(facts["stage2_gauges"]) == on_synthetic
    assert {"nearest_distance", "diversity", "class_accuracy"} < set(facts)
    assert facts["nearest_distance"] > 0 and facts["diversity"] > 0
    packed = learned.hasher.encode(images)
    assert packed.shape == (IMAGES, 2) and packed.dtype == np.uint8
    learned.hasher.save_weights(tmp_path)
    other = make(settings=learned.hasher.settings, seed=9)
    with pytest.raises(UserError, match="DSHGAN has not learned yet"):
        other.encode(images)
    assert np.abs(other._embed(images) - learned.hasher.embed(images)).max() > 1e-3
    other.load_weights(tmp_path)
    np.testing.assert_array_equal(other.encode(images), packed)
    assert keras.config.dtype_policy().name == "float32"


@either
def test_class_accuracy_is_that_of_the_queries(name, request):
    """Image by image: the largest logit; of several labels the share of right signs."""
    learned = request.getfixturevalue(name)
    points = []
    for query in learned.splits.query:
        image = learned.image_set.images[query : query + 1].astype(np.float32)
        logits = learned.hasher.networks["streams"](image)[2][0].numpy()
        labels = learned.image_set.labels[query]
        if name == "learned_one":
            points.append(logits.argmax() == labels.argmax())
        else:
            points.append(np.mean((logits > 0) == (labels == 1)))
    assert learned.facts["class_accuracy"] == pytest.approx(np.mean(points), abs=1e-6)


@either
@pytest.mark.parametrize("stage", ["gan", "hash"])
def test_tensorboard_has_synthetic_images_by_class(name, stage, request):
    """A row of eight images of 16 px a class, with gaps of 2 px."""
    learned = request.getfixturevalue(name)
    events = EventAccumulator(str(learned.directory / "logs" / stage), size_guidance={"tensors": 0})
    events.Reload()
    width, height, png = events.Tensors("synthetic_by_class")[0].tensor_proto.string_val[:3]
    assert (int(width), int(height)) == (8 * 18 - 2, CLASSES * 18 - 2)
    assert png.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("learned_one", ["synthetic_by_class", "nearest_real"]),
        ("learned_several", ["synthetic_by_class", "synthetic_label_sets", "nearest_real"]),
    ],
)
def test_it_draws_figures_7_and_8_and_the_nearest_real_images(name, names, tmp_path, request):
    learned = request.getfixturevalue(name)
    drawn = learned.hasher.draw(learned.image_set, learned.splits, tmp_path)
    assert drawn == [tmp_path / f"{figure}.png" for figure in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_the_class_accuracy_is_that_of_queries_of_learned_classes(one_label, tmp_path):
    """Of the queries those of classes 0 and 1 are judged; where none is of these, nothing is."""
    image_set, parts = one_label
    classes = image_set.labels.argmax(axis=1)
    seen = {part: positions[classes[positions] < 2] for part, positions in vars(parts).items()
            if part in ("labelled", "validation", "unlabelled")}  # fmt: skip
    splits_of_two = dataclasses.replace(parts, **seen)
    learned = learn(make(changed(real_fraction=1.0)), image_set, splits_of_two, tmp_path / "a")
    query = parts.query[classes[parts.query] < 2]
    logits = learned.hasher.networks["streams"](image_set.images[query].astype(np.float32))[2]
    expected = np.mean(logits.numpy().argmax(axis=1) == classes[query])
    assert learned.facts["class_accuracy"] == pytest.approx(expected)
    unseen = dataclasses.replace(splits_of_two, query=parts.query[classes[parts.query] >= 2])
    learned = learn(make(changed(real_fraction=1.0)), image_set, unseen, tmp_path / "b")
    assert "class_accuracy" not in learned.facts


def same_weights(network, weights):
    return all((a == b).all() for a, b in zip(network.get_weights(), weights, strict=True))


def test_stage_2_goes_on_with_g_and_leaves_d(learned_one):
    networks = learned_one.hasher.networks
    assert not same_weights(networks["generator"], learned_one.after_stage_1["generator"])
    assert same_weights(networks["discriminator"], learned_one.after_stage_1["discriminator"])


def test_stage_1_is_reused_over_bits_seeds_and_variants(one_label, tmp_path):
    """With G fixed in stage 2, it is still that of the first run at the end of the second."""
    config = changed(stage1_dir=str(tmp_path / "stage1"), train_generator=False)
    first = learn(make(config), *one_label, tmp_path / "a")
    kept = tmp_path / "stage1" / "gan-00000002.weights.h5"
    written = kept.stat().st_mtime_ns
    without_classes = dataclasses.replace(config, classification=False)
    second = learn(make(without_classes, bits=24, seed=5), *one_label, tmp_path / "b")
    assert kept.stat().st_mtime_ns == written
    for run in (first, second):
        assert same_weights(run.hasher.networks["generator"], first.after_stage_1["generator"])
    assert "class_accuracy" in first.facts and "class_accuracy" not in second.facts
    with pytest.raises(UserError, match="`weight_class`: 2.0, but .* was made with 1.0;"):
        make(dataclasses.replace(config, weight_class=2.0)).learn(*one_label, Run(tmp_path / "c"))


def test_a_kept_stage_0_is_of_the_same_weight_of_l_c(one_label, tmp_path):
    """Stage 0 has Eq. 8 without l_a, so that the weight of l_c decides about it."""
    config = changed(stage0_steps=2, stage0_dir=str(tmp_path / "stage0"))
    learn(make(config), *one_label, tmp_path / "a")
    again = learn(make(dataclasses.replace(config, noise_size=5)), *one_label, tmp_path / "b")
    assert "alone" not in again.hasher.history
    with pytest.raises(UserError, match="`weight_class`: 2.0, but .* was made with 1.0;"):
        make(dataclasses.replace(config, weight_class=2.0)).learn(*one_label, Run(tmp_path / "c"))


def test_a_fixed_g_is_not_judged_again_in_stage_2(one_label, tmp_path):
    learned = learn(make(changed(train_generator=False)), *one_label, tmp_path)
    judged = {stage: [t for t in terms if t.startswith("gauge/")]
              for stage, terms in learned.hasher.history.items()}  # fmt: skip
    assert judged["gan"] and not judged["hash"]


def test_real_triplets_alone_need_no_gan(one_label, tmp_path):
    learned = learn(make(changed(real_fraction=1.0)), *one_label, tmp_path)
    assert set(learned.hasher.networks) == {"hash_network", "streams"}
    assert "stage1_gauges" not in learned.facts and "class_accuracy" in learned.facts
    assert not list(tmp_path.glob("checkpoints/gan*"))
    assert learned.hasher.draw(*one_label, tmp_path) == []


def test_no_unlabelled_images_are_allowed_and_said(one_label, learned_one, tmp_path, capsys):
    image_set, parts = one_label
    alone = dataclasses.replace(parts, unlabelled=parts.unlabelled[:0])
    line = "dsh_gan: no unlabelled images; G and D learn from the labelled ones alone\n"
    assert line in learn(make(), image_set, alone, tmp_path / "a").printed
    assert line not in learned_one.printed
    none_a_batch = dataclasses.replace(SETTINGS, unlabelled_batch_size=0)
    make(settings=none_a_batch)._check(image_set, parts)
    assert capsys.readouterr().out == line
    make(changed(real_fraction=1.0), none_a_batch)._check(image_set, parts)
    assert capsys.readouterr().out == ""  # there is neither G nor D
    guesses = make(changed(unlabelled_confidence=0.9), none_a_batch)
    with pytest.raises(UserError, match="`unlabelled_confidence`: needs unlabelled images"):
        guesses._check(image_set, parts)


def test_a_class_may_have_one_image(tmp_path):
    """One labelled image a class has no real positive, and G makes one."""
    image_set = make_set(np.eye(CLASSES, dtype=np.uint8)[np.arange(IMAGES) % CLASSES])
    parts = split(image_set, labelled_per_class=1, validation_fraction=0.0)
    learn(make(), image_set, parts, tmp_path / "a")
    with pytest.raises(UserError, match="`labelled_per_class`: no triplet"):
        make(changed(real_fraction=0.5)).learn(image_set, parts, Run(tmp_path / "b"))


@pytest.mark.long
@pytest.mark.parametrize("backbone", ["vgg19", "resnet50"])
def test_large_backbones_learn_down_to_their_first_layer(backbone, one_label, tmp_path):
    """The kernels of convolutions move; what resnet50 keeps of its batches does not."""
    settings = dataclasses.replace(SETTINGS, backbone=backbone, backbone_size=32)
    hasher = make(changed(gan_steps=1, hash_learning_rate=1e-3), settings)
    backbone_weights = hasher.hash_network.backbone.weights
    before = {weight.path: weight.numpy() for weight in backbone_weights}
    facts = hasher.learn(*one_label, Run(tmp_path))
    moved = {w.path for w in backbone_weights if (w.numpy() != before[w.path]).any()}
    first, *_ = (path for path in before if path.endswith("kernel"))
    assert first in moved
    assert not any("moving" in path for path in moved)
    assert any("moving" in path for path in before) == (backbone == "resnet50")
    assert 0 <= facts["class_accuracy"] <= 1
    assert hasher.variant == backbone


def test_images_without_labels_are_refused(one_label, tmp_path):
    image_set, parts = one_label
    nameless = dataclasses.replace(image_set, labels=np.zeros_like(image_set.labels))
    with pytest.raises(UserError, match="`method`=dsh_gan: needs labels"):
        make().learn(nameless, parts, Run(tmp_path))


def test_a_users_own_triplets_are_refused(one_label, tmp_path):
    image_set, parts = one_label
    listed = dataclasses.replace(image_set, triplets=np.array([[0, 4, 1]]))
    with pytest.raises(UserError, match="`triplets_csv`: not with `method`=dsh_gan"):
        make().learn(listed, parts, Run(tmp_path))


def test_sampled_triplets_need_real_positives(one_label, tmp_path):
    sampled = dataclasses.replace(SETTINGS, triplets="sampled")
    with pytest.raises(UserError, match="`triplets`=sampled: .* `real_fraction`"):
        make(settings=sampled).learn(*one_label, Run(tmp_path / "a"))
    make(changed(real_fraction=0.5), sampled).learn(*one_label, Run(tmp_path / "b"))


def make_batches(hasher, images, stage):
    image_set, parts = images
    data = LearningData(image_set.images[:, None], image_set.labels, parts)
    return hasher.make_batches(data, stage)


def test_only_stage_1_takes_unlabelled_images(one_label):
    hasher = make()
    first, second = (make_batches(hasher, one_label, stage)(0) for stage in (0, 1))
    assert first["unlabelled"].shape[1] == 6 and second["unlabelled"].shape[1] == 0
    assert first["noise"].shape == (1, 12 + 6, 4) and second["noise"].shape == (1, 12, 4)
    assert first["labels"].shape == second["labels"].shape == (1, 12, CLASSES)
    assert first["images"].tolist() != second["images"].tolist()


@pytest.mark.parametrize("real_fraction", [0.0, 0.5, 1.0])
def test_x_minus_shares_no_label_with_x_and_a_real_x_plus_does(several_labels, real_fraction):
    hasher = make(changed(real_fraction=real_fraction))
    batches = make_batches(hasher, several_labels, 1)
    for step in range(10):
        batch = batches(step)
        labels = batch["labels"][0]
        for q, p, n in batch["triplets"][0]:
            assert not (labels[q] * labels[n]).any()
            assert (labels[q] * labels[p]).any() and (p == q) == (real_fraction == 0)


def test_synthetic_images_follow_from_labels_and_a_fixed_noise(learned_one):
    hasher = learned_one.hasher
    labels = np.eye(CLASSES, dtype=np.uint8)
    images = hasher.synthesise(labels)
    assert images.shape == (CLASSES, 16, 16, 3) and np.abs(images).max() <= 1
    np.testing.assert_array_equal(hasher.synthesise(labels), images)
    assert (hasher.synthesise(labels, salt=2) != images).any()
    assert (hasher.synthesise(labels[::-1].copy()) != images).any()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file for small_cnn, with which features can be made."""
    keras.utils.set_random_seed(3)
    trunk = backbones.build("small_cnn").get_layer("small_cnn")
    arrays = {
        f"{layer.name}/{weight.name}": keras.ops.convert_to_numpy(weight)
        for layer in trunk.layers
        for weight in layer.weights
    }
    path = tmp_path_factory.mktemp("weights") / "small.npz"
    np.savez(path, **arrays)
    return str(path)


def test_the_encoder_and_embed_agree_in_feature_space(several_labels, weights, tmp_path):
    image_set, parts = several_labels
    settings = dataclasses.replace(
        SETTINGS, weights=weights, flip=True, cache_dir=str(tmp_path / "cache")
    )
    hasher = make(changed(space="features"), settings)
    hasher.learn(image_set, parts, Run(tmp_path))
    images = image_set.images[:20]
    direct = hasher.encoder.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(hasher.embed(images), direct, atol=1e-5)


def test_in_feature_space_a_kept_stage_1_knows_the_weights(several_labels, weights, tmp_path):
    """The same file under another name will do, other weights will not."""
    image_set, parts = several_labels
    data = LearningData(image_set.images[:, None], image_set.labels, parts)
    with np.load(weights) as file:
        arrays = dict(file)
    np.savez(tmp_path / "same.npz", **arrays)
    np.savez(tmp_path / "other.npz", **{name: array + 0.1 for name, array in arrays.items()})

    def decides(path):
        settings = dataclasses.replace(SETTINGS, weights=str(path))
        return make(changed(space="features"), settings)._deciding_for_stage_1(data)

    assert decides(tmp_path / "same.npz") == decides(weights)
    assert decides(tmp_path / "other.npz") != decides(weights)


@pytest.mark.parametrize(
    ("options", "variant"),
    [
        ({}, None),
        ({"classification": False}, "without_classification"),
        ({"real_fraction": 0.3}, "real_0.3"),
        ({"real_fraction": 1.0, "classification": False}, "without_classification_real_1"),
    ],
)
def test_variants_have_names(options, variant):
    assert make(changed(**options)).variant == variant


@pytest.mark.parametrize("batch_norm", [False, True])
def test_it_passes_batch_normalisation_and_dropout_on_to_d(batch_norm):
    hasher = make(changed(discriminator_batch_norm=batch_norm, discriminator_dropout=0.3))
    hasher._build(CLASSES)
    discriminator = hasher.networks["discriminator"]
    assert bool(discriminator.non_trainable_variables) == batch_norm
    assert discriminator.dropout == 0.3


@pytest.mark.parametrize("gan_size", [16, 32])
def test_images_of_g_may_be_smaller_or_larger_than_those_of_h(gan_size, check_both_stages):
    """Every term at once, with images of 24 px, and unlabelled ones among them."""
    config = changed(
        gan_size=gan_size, real_fraction=0.4, dropout=0.2, discriminator_dropout=0.2, minimax=True
    )
    settings = dataclasses.replace(SETTINGS, flip=True, groups=2)
    of_hash = {*HASH_TERMS, *ADVERSARY_TERMS, *CLASS_TERMS, "validation_map"}
    hasher = make(config, settings, image_size=24)
    check_both_stages(hasher, {"gan": set(GAN_TERMS), "hash": of_hash})
    assert hasher.synthesise(np.eye(3, dtype=np.uint8)).shape == (3, gan_size, gan_size, 3)


def test_on_a_trunk_its_cnn_learns_first_and_then_of_unlabelled_images(one_label, tmp_path):
    config = changed(stage0_steps=2, gan_space="trunk", unlabelled_confidence=0.3)
    hasher = make(config, dataclasses.replace(SETTINGS, unlabelled_view="strong"))
    facts = hasher.learn(*one_label, Run(tmp_path))
    assert {"stage0_seconds", "stage1_seconds", "stage2_seconds", "class_accuracy"} <= set(facts)
    assert set(hasher.history) == {"alone", "gan", "hash"}
    assert not {*ADVERSARY_TERMS, *UNLABELLED_TERMS} & set(hasher.history["alone"])
    assert set(UNLABELLED_TERMS) <= set(hasher.history["hash"])
    assert len(hasher.draw(*one_label, tmp_path)) == 2


def test_the_cnn_sees_unlabelled_images_in_two_views_where_it_learns_of_them(one_label):
    image_set, parts = one_label
    settings = dataclasses.replace(SETTINGS, unlabelled_view="strong")
    data = LearningData(image_set.images[:, None], image_set.labels, parts)
    batches = [
        make(changed(unlabelled_confidence=confidence), settings).make_batches(data, 1)
        for confidence in (None, 0.5)
    ]
    without, with_them = (of_run(0) for of_run in batches)
    assert without["unlabelled"].shape[1] == 0 and "other_unlabelled" not in without
    assert with_them["unlabelled"].shape == with_them["other_unlabelled"].shape
    assert with_them["unlabelled"].shape[1] == 6
    grey = (with_them["unlabelled"] == 128).all(axis=-1).mean()
    assert grey > 0.1 > (with_them["other_unlabelled"] == 128).all(axis=-1).mean()
    np.testing.assert_array_equal(without["images"], with_them["images"])
    of_stage_1 = make(changed(), settings).make_batches(data, 0)(0)["unlabelled"]
    assert (of_stage_1 == 128).all(axis=-1).mean() < 0.1  # G and D see weak views


def test_several_labels_of_queries_alone_change_nothing_that_is_learned(learned_one, tmp_path):
    """The class loss is that of the labelled images; of a query's labels any one is right."""
    image_set, parts = learned_one.image_set, learned_one.splits
    labels = image_set.labels.copy()
    labels[parts.query, :2] = 1
    other = learn(make(), dataclasses.replace(image_set, labels=labels), parts, tmp_path)
    images = image_set.images
    np.testing.assert_array_equal(other.hasher.embed(images), learned_one.hasher.embed(images))
    points, of_first = [], []
    for query in parts.query:
        logits = other.hasher.networks["streams"](images[query : query + 1].astype(np.float32))[2]
        best = logits[0].numpy().argmax()
        points.append(labels[query, best])
        of_first.append(best == labels[query].argmax())
    assert other.facts["class_accuracy"] == pytest.approx(np.mean(points), abs=1e-6)
    assert np.mean(of_first) < np.mean(points)


def test_guessed_classes_are_of_one_label_an_image(several_labels, tmp_path):
    with pytest.raises(UserError, match="`unlabelled_confidence`: needs one label an image"):
        make(changed(unlabelled_confidence=0.5)).learn(*several_labels, Run(tmp_path))
    with pytest.raises(UserError, match="`unlabelled_confidence`: not without `classification`"):
        changed(unlabelled_confidence=0.5, classification=False)
