"""A backbone that learns: its own rate, its first step, and features of one scale."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfhash
from tfhash.hashers import spaces

pytestmark = pytest.mark.usefixtures("eagerly")

DIGITS = load_digits(n_class=3)
IMAGES = np.repeat(np.uint8(DIGITS.images[:90] * 15)[..., None], 3, axis=-1)
LABELS = np.where(np.arange(90) < 60, DIGITS.target[:90], -1)
SMALL = {
    "code_length": 12, "steps": 1, "checkpoint_every": 1, "batch_size": 24,
    "hash_optimizer": "sgd", "hash_learning_rate": 0.1, "unlabelled_batch_size": 0,
}  # fmt: skip


class Watch(keras.callbacks.Callback):
    """Keeps the weights of H before the first step and after each, by what they are of."""

    def __init__(self):
        super().__init__()
        self.seen: list[dict[str, list[np.ndarray]]] = []

    def on_train_begin(self, logs=None):
        self.keep()

    def on_train_batch_end(self, batch, logs=None):
        self.keep()

    def keep(self):
        network = self.model.hash_network
        trunk = network.backbone.trainable_variables
        above = [v for v in network.trainable_variables if all(v is not t for t in trunk)]
        self.seen.append(
            {name: [v.numpy() for v in of] for name, of in (("trunk", trunk), ("above", above))}
        )

    def change(self, name: str, step: int = 1) -> np.ndarray:
        """How far all weights of trunk or above moved in a step, one after the other."""
        pairs = zip(self.seen[step - 1][name], self.seen[step][name], strict=True)
        return np.concatenate([(after - before).ravel() for before, after in pairs])


def changes(**settings) -> Watch:
    watch = Watch()
    tfhash.DHN(**{**SMALL, **settings}).fit(IMAGES, LABELS, callbacks=[watch])
    return watch


@pytest.fixture(scope="module")
def plain(eagerly) -> Watch:
    return changes()


def test_the_backbone_has_its_part_of_the_rate(plain):
    slow = changes(trunk_rate=0.25)
    assert np.abs(plain.change("trunk")).max() > 1e-3
    np.testing.assert_allclose(
        slow.change("trunk"), plain.change("trunk") / 4, rtol=1e-2, atol=1e-6
    )
    np.testing.assert_allclose(slow.change("above"), plain.change("above"), rtol=1e-2, atol=1e-6)


def test_the_backbone_waits_for_its_first_step():
    late = changes(trunk_from=2, steps=3, checkpoint_every=3)
    moved = [np.abs(late.change("trunk", step)).max() for step in (1, 2, 3)]
    assert moved[0] == moved[1] == 0 < moved[2]
    assert all(np.abs(late.change("above", step)).max() > 0 for step in (1, 2, 3))


def test_a_backbone_that_waits_has_no_part_in_the_norm(plain):
    """What is above it is shortened by itself, as if the backbone were frozen."""
    above = np.linalg.norm(plain.change("above")) / 0.1
    waiting = changes(trunk_from=1, clip_norm=0.5 * above)
    length = np.linalg.norm(waiting.change("above")) / 0.1
    assert length == pytest.approx(0.5 * above, rel=1e-3)


def test_the_rate_rises(plain):
    """The first of three steps has a quarter of it."""
    rising = changes(warmup_steps=3)
    for name in ("trunk", "above"):
        expected = plain.change(name) / 4
        np.testing.assert_allclose(rising.change(name), expected, rtol=1e-2, atol=1e-6)


def test_a_long_gradient_is_shortened(plain):
    """Over trunk and hash layer together; one that is short enough stays as it is."""

    def length(watch: Watch) -> float:
        return np.linalg.norm([*watch.change("trunk"), *watch.change("above")]) / 0.1

    whole = length(plain)
    assert length(changes(clip_norm=0.5 * whole)) == pytest.approx(0.5 * whole, rel=1e-3)
    assert length(changes(clip_norm=2 * whole)) == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("name", ["DHN", "SSGAH", "DSHGAN", "BGDH"])
def test_features_have_one_scale_before_training(name, monkeypatch):
    """Of the images learned from; not of queries, of which there are none here."""
    small = {"gan_size": 16, "gan_width": 4, "noise_size": 4, "gan_steps": 1, "anchors": 20}
    hasher_class = getattr(tfhash, name)
    fields = hasher_class.Config.__dataclass_fields__
    of_method = {key: value for key, value in small.items() if key in fields}
    hasher = hasher_class(**{**SMALL, **of_method, "standardise_features": True})
    seen = {}
    start_scores = hasher_class.start_scores

    def look(self, data):
        start_scores(self, data)
        features = self.hash_network.backbone(IMAGES.astype(np.float32)).numpy()
        seen["mean"], seen["deviation"] = features.mean(axis=0), features.std(axis=0)

    monkeypatch.setattr(hasher_class, "start_scores", look)
    hasher.fit(IMAGES, LABELS)
    np.testing.assert_allclose(seen["mean"], 0, atol=1e-3)
    varies = seen["deviation"] > 0
    assert varies.mean() > 0.8
    np.testing.assert_allclose(seen["deviation"][varies], 1, rtol=1e-3)


def test_the_scale_is_saved_and_the_backbone_learns_through_it(tmp_path):
    watch = Watch()
    hasher = tfhash.DHN(**SMALL, standardise_features=True)
    hasher.fit(IMAGES, LABELS, callbacks=[watch])
    assert np.abs(watch.change("trunk")).max() > 0
    hasher.save(tmp_path / "saved")
    loaded = tfhash.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.embed(IMAGES), hasher.embed(IMAGES))
    layer = loaded.hash_network.backbone.get_layer("standardise")
    assert np.abs(layer.mean.numpy()).max() > 0.01


def test_the_scale_is_of_all_images_learned_from_and_of_at_most_so_many(monkeypatch):
    """Those without labels among them."""

    def mean(**more) -> np.ndarray:
        hasher = tfhash.DHN(**SMALL, standardise_features=True)
        hasher.fit(IMAGES[:60], LABELS[:60], **more)
        return hasher.hash_network.backbone.get_layer("standardise").mean.numpy()

    alone = mean()
    np.testing.assert_array_equal(mean(), alone)
    assert np.abs(mean(unlabelled=255 - IMAGES[60:]) - alone).max() > 1e-3
    monkeypatch.setattr(spaces, "ADAPT", 20)
    assert np.abs(mean() - alone).max() > 1e-6


@pytest.mark.parametrize("name", ["DHN", "BGDH", "NINH"])
def test_mirrored_codes_are_of_an_image_and_its_mirror_image(name, tmp_path):
    """H learns as without; its codes, saved and exported ones too, are of the mean of both."""
    hasher_class = getattr(tfhash, name)
    small = {"anchors": 20, "slice_units": 4}
    fields = hasher_class.Config.__dataclass_fields__
    options = SMALL | {key: value for key, value in small.items() if key in fields}
    plain = hasher_class(**options, flip=True).fit(IMAGES, LABELS)
    mirrored = hasher_class(**options, flip=True, mirrored_codes=True).fit(IMAGES, LABELS)
    of_image, of_mirror = plain.embed(IMAGES), plain.embed(IMAGES[:, :, ::-1])
    expected = (of_image + of_mirror) / 2
    assert np.abs(of_image - of_mirror).max() > 1e-4
    np.testing.assert_allclose(mirrored.embed(IMAGES), expected, atol=1e-6)
    sure = np.abs(expected - 0.5) > 1e-6
    bits = np.unpackbits(mirrored.encode(IMAGES), axis=1, count=12)
    assert sure.mean() > 0.7
    np.testing.assert_array_equal(bits[sure], expected[sure] > 0.5)
    mirrored.save(tmp_path / "saved")
    loaded = tfhash.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.embed(IMAGES), mirrored.embed(IMAGES))
    folder = tfhash.export_saved_model(mirrored, tmp_path / "export")
    exported = tf.saved_model.load(str(folder)).signatures["encode_images"]
    embedding = exported(images=tf.constant(IMAGES))["embedding"]
    np.testing.assert_allclose(embedding, mirrored.embed(IMAGES), atol=1e-6)


def test_mirrored_codes_are_what_no_paper_has():
    hasher = tfhash.DHN(**SMALL, flip=True, mirrored_codes=True)
    assert hasher.not_as_published(hasher.settings, hasher.config)["mirrored_codes"] is True
    plain = tfhash.DHN(**SMALL, flip=True)
    assert "mirrored_codes" not in plain.not_as_published(plain.settings, plain.config)


def test_validation_judges_mirrored_codes(monkeypatch):
    """What is chosen by is the mAP of the codes that will be searched."""
    asked = []
    monkeypatch.setattr(
        "tfhash.hashers.deep.validation_maps", lambda *codes: asked.append(codes) or {}
    )
    hasher = tfhash.DHN(**SMALL, flip=True, mirrored_codes=True)
    hasher.fit(IMAGES, LABELS, validation=(IMAGES[:7], LABELS[:7]))
    np.testing.assert_array_equal(asked[-1][0], hasher.encode(IMAGES[:7]))


def test_mirrored_codes_need_flips():
    with pytest.raises(tfhash.UserError, match="`mirrored_codes`: True; allowed with `flip`"):
        tfhash.DHN(**SMALL, mirrored_codes=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("trunk_rate", 0.0), ("trunk_from", -1), ("warmup_steps", -1), ("clip_norm", 0.0)],
)
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(tfhash.UserError, match=f"`{name}`: {value}; allowed"):
        tfhash.DHN(code_length=12, **{name: value})


def test_a_row_tells_what_no_paper_has():
    """Settings that a backbone that learns was given; the plain ones are not told."""
    given = {"unlabelled_view": "strong", "trunk_rate": 0.5, "clip_norm": 5.0, "flip": True}
    told = tfhash.DHN(code_length=12, **given)
    plain = tfhash.DHN(code_length=12)
    differs = [
        type(hasher).not_as_published(hasher.settings, hasher.config) for hasher in (told, plain)
    ]
    added = {name: value for name, value in given.items() if name != "flip"}
    assert differs[0] == differs[1] | added and not set(added) & set(differs[1])
