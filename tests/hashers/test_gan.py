"""What GAN methods share: H's learning rate and weight decay, G's, and what decides stage 1."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import keras
import numpy as np
import pytest

from tfhash.data.learning import LearningData
from tfhash.data.splits import RetrievalSplits
from tfhash.errors import UserError
from tfhash.hashers.deep_settings import DeepSettings
from tfhash.hashers.gan import GANHasher, samples
from tfhash.hashers.gan_settings import GANConfig
from tfhash.training.stage import Stage


@dataclass(frozen=True)
class ToyConfig(GANConfig):
    """The hyperparameters of all GANs, and no others."""


class Toy(GANHasher):
    """A method that only has what all of them share."""

    Config = ToyConfig

    def train_stages(self, image_set, splits, run):
        raise NotImplementedError

    def make_batches(self, data, stage):
        raise NotImplementedError


class ToyStage(Stage):
    """Optimizers by name, one number each."""

    def __init__(self, *names):
        super().__init__({}, (), seed=0)
        self.numbers = {name: [keras.Variable(1.0)] for name in names}

    def variables_by_optimizer(self):
        return self.numbers

    def forward(self, batch):
        raise NotImplementedError

    def objectives(self, terms):
        raise NotImplementedError


def make(settings=None, bits=8, seed=0, config=None, **options):
    config = config or ToyConfig(gan_size=16, gan_width=4, **options)
    settings = settings or DeepSettings(steps=8)
    return Toy.of(config, settings, code_length=bits, image_size=16, seed=seed)


def path_of_h(gradient=1.0, updates=5, **options):
    """A number that starts at 1, after each of some updates of H's under the same gradient."""
    stage = make(**options).compile(ToyStage("hash"))
    (number,) = stage.numbers["hash"]
    values = []
    for _ in range(updates):
        stage.optimizer.apply([keras.ops.convert_to_tensor(gradient)], [number])
        values.append(float(number.numpy()))
    return values


def sgd_by_hand(rates, momentum=0.9):
    """velocity = .9 velocity - rate, number = number + velocity, from 1 and 0."""
    number, velocity, values = 1.0, 0.0, []
    for rate in rates:
        velocity = momentum * velocity - rate
        number += velocity
        values.append(number)
    return values


@pytest.mark.parametrize("full_rate_updates", [1, 3])
def test_step_makes_just_so_many_updates_at_the_full_rate(full_rate_updates):
    path = path_of_h(
        hash_schedule="step", hash_decay_steps=full_rate_updates, hash_learning_rate=0.2
    )
    rates = [0.2 if update < full_rate_updates else 0.02 for update in range(5)]
    np.testing.assert_allclose(path, sgd_by_hand(rates), rtol=1e-5, atol=1e-6)


def test_the_learning_rate_of_the_log_falls_after_the_last_update_at_the_full_rate():
    hasher = make(hash_schedule="step", hash_decay_steps=2, hash_learning_rate=0.2)
    stage = hasher.compile(ToyStage("hash"))
    rates = []
    for _ in range(4):
        rates.append(stage.learning_rates()["learning_rate/hash"])
        stage.optimizer.apply([keras.ops.convert_to_tensor(0.0)], stage.numbers["hash"])
    np.testing.assert_allclose(rates, [0.2, 0.2, 0.02, 0.02], rtol=1e-6)


def test_constant_and_cosine_by_hand():
    """Cosine: rate (1 + cos(pi update / 8)) / 2 over the 8 updates of the settings."""
    constant = path_of_h(hash_learning_rate=0.2)
    np.testing.assert_allclose(constant, sgd_by_hand([0.2] * 5), rtol=1e-5)
    rates = [0.2 * (1 + math.cos(math.pi * update / 8)) / 2 for update in range(8)]
    cosine = path_of_h(updates=8, hash_learning_rate=0.2, hash_schedule="cosine")
    np.testing.assert_allclose(cosine, sgd_by_hand(rates), rtol=1e-5)


def test_weight_decay_is_off_by_default():
    for name in ("sgd", "adamw"):
        assert path_of_h(gradient=0.0, hash_optimizer=name) == [1.0] * 5


def test_weight_decay_of_adamw_by_hand():
    """Loshchilov and Hutter: apart from the gradient, each update takes rate * decay of it."""
    path = path_of_h(gradient=0.0, hash_optimizer="adamw", hash_learning_rate=0.2, weight_decay=0.5)
    np.testing.assert_allclose(path, [0.9**update for update in range(1, 6)], rtol=1e-5)


def test_weight_decay_of_sgd_is_part_of_the_gradient():
    """As in Caffe, with which DSH-GANs' paper made its numbers: decay * w joins the gradient, and
    so the momentum. With rate .2 and decay .5: velocity = .9 velocity - .1 w."""
    path = path_of_h(gradient=0.0, hash_learning_rate=0.2, weight_decay=0.5)
    number, velocity, expected = 1.0, 0.0, []
    for _ in range(5):
        velocity = 0.9 * velocity - 0.2 * 0.5 * number
        number += velocity
        expected.append(number)
    np.testing.assert_allclose(path, expected, rtol=1e-5)


def test_g_is_slower_beside_h_and_has_adam_with_the_beta_of_the_config():
    """A rate of .1, and in a stage that trains H too .3 of it."""
    hasher = make(gan_learning_rate=0.1, stage2_gan_rate=0.3, gan_beta_1=0.7)
    first = hasher.compile(ToyStage("discriminator", "generator"))
    second = hasher.compile(ToyStage("hash", "generator"))
    for stage, rate in ((first, 0.1), (second, 0.03)):
        assert stage.learning_rates()["learning_rate/generator"] == pytest.approx(rate)
        assert isinstance(stage.generator_optimizer, keras.optimizers.Adam)
        assert stage.generator_optimizer.beta_1 == 0.7
    assert first.learning_rates()["learning_rate/discriminator"] == pytest.approx(0.1)
    assert isinstance(second.optimizer, keras.optimizers.SGD)


@pytest.mark.parametrize("field", ["gan_beta_1", "dropout", "discriminator_dropout"])
@pytest.mark.parametrize("value", [1.0, 2.5])
def test_what_has_to_stay_below_1(field, value):
    with pytest.raises(UserError, match=f"`{field}`: {value}; allowed: .*below 1$"):
        ToyConfig(**{field: value})
    ToyConfig(**{field: 0.999})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gan_width", 0), ("hash_decay_steps", 0), ("noise_size", -1), ("hidden_units", -1),
        ("gan_steps", -1), ("weight_decay", -1.0), ("hash_learning_rate", -1.0),
        ("gan_learning_rate", -1.0), ("gan_beta_1", -0.1), ("dropout", -0.1),
        ("discriminator_dropout", -0.1), ("space", "x"), ("hash_optimizer", "x"),
        ("hash_schedule", "x"), ("stage2_gan_rate", -1.0), ("gan_size", 20),
    ],
)  # fmt: skip
def test_a_wrong_value_names_the_setting(field, value):
    with pytest.raises(UserError, match=f"`{field}`: "):
        ToyConfig(**{field: value})


def learning_data(fingerprint="aaaa", listed=None):
    part = np.arange(3)
    splits = RetrievalSplits("toy", 0, part, part + 3, part + 3, part[:0], part[:0], fingerprint)
    labels = np.ones((6, 1), np.uint8)
    return LearningData(np.zeros((6, 1, 16, 16, 3), np.uint8), labels, splits, listed)


@pytest.mark.parametrize(
    ("options", "decides"),
    [
        ({"gan_width": 8}, True),
        ({"gan_steps": 7}, True),
        ({"gan_learning_rate": 0.1}, True),
        ({"gan_beta_1": 0.1}, True),
        ({"noise_size": 7}, True),
        ({"minimax": True}, True),
        ({"discriminator_dropout": 0.1}, True),
        ({"discriminator_batch_norm": False}, True),
        ({"hash_learning_rate": 0.1}, False),
        ({"hash_schedule": "step"}, False),
        ({"hash_decay_steps": 7}, False),
        ({"stage2_gan_rate": 0.1}, False),
        ({"hidden_units": 7}, False),
        ({"weight_decay": 0.1}, False),
        ({"stage1_dir": "elsewhere"}, False),
    ],
    ids=str,
)
def test_options_that_decide_about_stage_1(options, decides):
    data = learning_data()
    config = ToyConfig(gan_size=16, gan_width=4)
    before = make(config=config)._deciding_for_stage_1(data)
    after = make(config=dataclasses.replace(config, **options))._deciding_for_stage_1(data)
    assert (after != before) == decides


@pytest.mark.parametrize(
    ("options", "decides"),
    [
        ({"batch_size": 32}, True),
        ({"unlabelled_batch_size": 32}, True),
        ({"groups": 2}, True),
        ({"flip": True}, True),
        ({"shift": 3}, True),
        ({"shift_fill": "reflect"}, True),
        ({"steps": 9}, False),
        ({"checkpoint_every": 9}, False),
        ({"backbone": "squeezenet"}, False),
    ],
    ids=str,
)
def test_settings_that_decide_about_stage_1(options, decides):
    """In pixels the GAN has nothing of the backbone."""
    data = learning_data()
    before = make()._deciding_for_stage_1(data)
    settings = dataclasses.replace(DeepSettings(steps=8), **options)
    assert (make(settings)._deciding_for_stage_1(data) != before) == decides


def test_bits_and_seed_do_not_decide_about_stage_1_and_the_split_does():
    data = learning_data()
    kept = make()._deciding_for_stage_1(data)
    assert make(bits=16, seed=3)._deciding_for_stage_1(data) == kept
    for other in (learning_data("bbbb"), learning_data(listed=np.array([[0, 1, 2]]))):
        assert make()._deciding_for_stage_1(other) != kept


def test_a_methods_own_flags_decide_where_it_says_so():
    class Other(Toy):
        stage1_flags = ("hidden_units",)

    config = ToyConfig(gan_size=16, gan_width=4)
    data = learning_data()
    kept, changed = (
        Other.of(c, DeepSettings(), code_length=8, image_size=16, seed=0)._deciding_for_stage_1(
            data
        )
        for c in (config, dataclasses.replace(config, hidden_units=7))
    )
    assert {name for name in kept if kept[name] != changed[name]} == {"hidden_units"}


def test_samples_are_unlabelled_images_or_else_labelled_ones():
    """Spread over the part: of 6 to 10 the first, the middle and the last."""
    splits = learning_data().splits
    unlabelled = dataclasses.replace(splits, unlabelled=np.arange(6, 11))
    assert samples(unlabelled, 3).tolist() == [6, 8, 10]
    assert samples(splits, 9).tolist() == [3, 4, 5]
