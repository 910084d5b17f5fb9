"""The classification stream beside SSGAH's bits: what it learns, and whom it teaches."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.methods.numeric import numeric_gradient
from tests.methods.ssgah.tiny_hasher import CONFIG, make
from tests.methods.ssgah.tiny_stage import BITS, ITEM, make_batch, make_stage
from tfhash.errors import UserError
from tfhash.methods.ssgah.config import RANKINGS
from tfhash.networks.hash_layer import HashNetwork
from tfhash.training.run import Run

LABELS = np.eye(3, dtype=np.float32)[[[0, 0, 1, 2, 2], [1, 1, 0, 2, 0]]]
# An image of two labels, and one of none.
SEVERAL = np.where(np.arange(5)[:, None] == 3, [1.0, 1.0, 0.0], LABELS).astype(np.float32)
SEVERAL[1, 4] = 0


def batch_with(labels):
    return make_batch() | {"labels": tf.constant(labels)}


def by_hand(stage, images, labels, multi_label):
    """The mean over all images of the cross entropy of what is linear in them."""
    logits = images.numpy() @ stage.classes.kernel.numpy() + stage.classes.bias.numpy()
    if multi_label:
        chances = 1 / (1 + np.exp(-logits))
        each = -labels * np.log(chances) - (1 - labels) * np.log(1 - chances)
    else:
        each = -labels * np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    return (each.sum(-1) * labels.any(-1)).mean()


@pytest.mark.parametrize("variant", RANKINGS)
@pytest.mark.parametrize(("labels", "multi_label"), [(LABELS, False), (SEVERAL, True)])
def test_its_term_is_the_cross_entropy_of_labelled_images(variant, labels, multi_label):
    stage = make_stage(variant, class_count=3, multi_label=multi_label, weight_class=0.3)
    batch = batch_with(labels)
    expected = by_hand(stage, batch["images"], labels, multi_label)
    np.testing.assert_allclose(stage.gradients(batch)[1]["class"], expected, rtol=1e-5)


def test_all_other_terms_are_those_without_it():
    """With the same weights of H: the bits come of the same product as the classes."""
    plain, with_classes = make_stage(), make_stage(class_count=3, weight_class=0.3)
    with_classes.hash_network.hash_layer.set_weights(plain.hash_network.get_weights())
    for name in ("condition", "generator_p", "generator_n", "discriminator"):
        getattr(with_classes, name).set_weights(getattr(plain, name).get_weights())
    expected = plain.gradients(make_batch())[1]
    terms = with_classes.gradients(batch_with(LABELS))[1]
    assert set(terms) == {*expected, "class"}
    for term, value in expected.items():
        np.testing.assert_allclose(terms[term], value, rtol=1e-5, err_msg=term)


def test_it_learns_and_neither_g_nor_d_hears_of_it():
    """Its gradient is weight_class times that of the term; G's and D's do not depend on it."""
    gradients = {}
    for weight in (0.3, 0.9):
        stage = make_stage(class_count=3, weight_class=weight)
        gradients[weight] = stage.gradients(batch_with(LABELS))[0]
    *_, kernel, bias = gradients[0.3]["hash"]
    *_, thrice, bias_thrice = gradients[0.9]["hash"]
    assert np.abs(kernel).max() > 1e-3 and np.abs(bias).max() > 1e-3
    np.testing.assert_allclose(thrice, 3 * kernel, rtol=1e-5)
    np.testing.assert_allclose(bias_thrice, 3 * bias, rtol=1e-5)
    for network in ("generator", "discriminator"):
        for one, other in zip(gradients[0.3][network], gradients[0.9][network], strict=True):
            np.testing.assert_array_equal(one, other)


def test_it_teaches_the_layers_below_the_bits():
    """By differences, in what H minimises: L_sr + weight_class l_c."""
    stage = make_stage("baseline", class_count=3, weight_class=0.5, margin_sr=0.0)
    stage.hash_network = HashNetwork(BITS, hidden_units=(ITEM,))
    stage.hash_network.build((None, ITEM))
    kernel = stage.hash_network.hidden_layers[0].kernel
    batch = batch_with(LABELS)
    gradients, _ = stage.gradients(batch)
    variables = stage.variables_by_optimizer()["hash"]
    (of_kernel,) = (g for g, v in zip(gradients["hash"], variables, strict=True) if v is kernel)
    objective = lambda terms: terms["sr"] + 0.5 * terms["class"]  # noqa: E731
    for entry in [(0, 0), (3, 4)]:
        expected = numeric_gradient(stage, batch, objective, kernel, entry)
        np.testing.assert_allclose(of_kernel[entry], expected, atol=2e-3)
    without = make_stage("baseline", class_count=3, weight_class=0.0, margin_sr=0.0)
    without.hash_network = stage.hash_network
    of_sr = without.gradients(batch)[0]["hash"][0]
    assert np.abs(of_kernel - of_sr).max() > 1e-2


def test_the_labels_of_other_images_change_its_term():
    stage = make_stage(class_count=3, weight_class=0.3)
    swapped = LABELS[:, ::-1]
    one, other = (stage.gradients(batch_with(labels))[1] for labels in (LABELS, swapped))
    assert abs(float(one["class"]) - float(other["class"])) > 1e-3
    np.testing.assert_array_equal(one["sr"], other["sr"])


def test_it_learns_in_stage_0_and_goes_on_in_the_last_stage(real_digits, eagerly, tmp_path):
    config = dataclasses.replace(
        CONFIG, weight_class=1.0, stage0_steps=2, stage0_dir=str(tmp_path / "stage0")
    )
    hasher = make(config)
    first = []

    def keep(*arguments, **options):
        first.append(hasher.networks["classes"].get_weights())
        return type(hasher).train_hash(hasher, *arguments, **options)

    hasher.train_hash = keep
    hasher.learn(*real_digits, Run(tmp_path / "run"))
    begun = make(config)
    begun._build_classes(begun.learning_data(*real_digits))
    moved = [begun.networks["classes"], hasher.networks["classes"]]
    weights = [moved[0].get_weights()[0], first[0][0], moved[1].get_weights()[0]]
    assert all(np.abs(a - b).max() > 1e-4 for a, b in zip(weights, weights[1:], strict=False))
    assert {"class"} <= set(hasher.history["alone"]) & set(hasher.history["hash"])
    assert "class" not in hasher.history["gan"]
    assert hasher.variant == "with_classes"
    other = make(dataclasses.replace(config, weight_class=0.5))
    with pytest.raises(UserError, match="`weight_class`: 0.5, but .* was made with 1.0"):
        other.learn(*real_digits, Run(tmp_path / "other"))


def test_without_it_there_is_no_stream(real_digits):
    hasher = make()
    hasher._build_classes(hasher.learning_data(*real_digits))
    assert "classes" not in hasher.networks and hasher.variant is None
    assert hasher.make_batches(hasher.learning_data(*real_digits), 1).labels is None


@pytest.mark.parametrize(
    ("variant", "name"), [("baseline", "baseline_with_classes"), ("w_ssr", "w_ssr_with_classes")]
)
def test_the_label_of_a_row_says_so(variant, name):
    assert make(dataclasses.replace(CONFIG, variant=variant, weight_class=0.1)).variant == name


def test_triplets_alone_name_no_classes(real_digits):
    hasher = make(dataclasses.replace(CONFIG, weight_class=1.0))
    data = hasher.learning_data(*real_digits)
    with pytest.raises(UserError, match="`weight_class`: needs labels"):
        hasher._build_classes(dataclasses.replace(data, labels=np.zeros_like(data.labels)))
    listed = dataclasses.replace(data, listed=np.zeros((1, 3), int))
    with pytest.raises(UserError, match="`weight_class`: needs labels"):
        hasher._build_classes(listed)
